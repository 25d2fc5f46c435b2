"""The page wired: which of the service's answers goes where, and what the API calls it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from align.audio.files import AudioError
from soundprompt.app import messages as words
from soundprompt.app.audio_input import hear, portrait
from soundprompt.app.examples import example_sounds
from soundprompt.app.layout import Parts, lay_out
from soundprompt.app.models import NONE, base_of, find
from soundprompt.app.service import Refusal, Service
from soundprompt.app.theme import CSS, theme
from soundprompt.app.validation import MAX_SEED

HOUR_S = 3600


def build(service: Service) -> gr.Blocks:
    """The page around a service, not yet launched."""
    # A visitor's files go within a day of their making.
    with gr.Blocks(
        title="SoundPrompt", analytics_enabled=False, delete_cache=(HOUR_S, 24 * HOUR_S)
    ) as page:
        parts = lay_out(service)
        _wire_sound(service, parts)
        _wire_drawing(service, parts)
        _wire_models(service, parts)

        def leave(request: gr.Request) -> None:
            service.stops.stop(str(request.session_hash))

        page.unload(leave)
    page.queue(max_size=service.options.max_waiting, default_concurrency_limit=1)
    return page


def launch_options(service: Service) -> dict[str, Any]:
    """What `Blocks.launch` is given for this page, beside whether to wait."""
    options = service.options
    return {
        "server_name": options.server_name,
        "server_port": options.server_port or _port_of_environment(),
        "max_file_size": int(options.max_upload_mb * 1_000_000),
        "theme": theme(),
        "css_paths": CSS,
        "footer_links": ["api", "settings"],
        "run_history": False,  # nothing of a visitor's sounds is to be kept
        "enable_monitoring": False,
        "ssr_mode": False,
        "share": False,
    }


def _port_of_environment() -> int | None:
    # Given as an argument it is the only port tried; Gradio itself would take it for the first of
    # a hundred, and go on to one that nobody expects when the start is slow.
    port = os.environ.get("GRADIO_SERVER_PORT", "")
    return int(port) if port.isdigit() else None


def _wire_sound(service: Service, parts: Parts) -> None:
    def listen(sound: str | None) -> tuple[Any, str]:
        """The picture of a sound's waveform and spectrogram, and what was heard in words."""
        if sound is None:
            return gr.Image(value=None, visible=False), words.status(words.BEGIN)
        try:
            heard = hear(sound, service.options)
        except AudioError as error:
            hidden = gr.Image(value=None, visible=False)
            return hidden, words.status(str(error), alert=True)
        return (
            gr.Image(value=portrait(heard), visible=True),
            words.heard(heard.duration_s, heard.lost),
        )

    paths = list(example_sounds().values())
    parts.examples.click(
        lambda i: paths[i], parts.examples, parts.sound, api_visibility="private",
        show_progress="hidden",
    )  # fmt: skip
    parts.sound.change(
        listen, parts.sound, [parts.portrait, parts.status], api_name="listen",
        concurrency_limit=4, concurrency_id="light", show_progress="hidden",
        trigger_mode="always_last",
    )  # fmt: skip


def _wire_drawing(service: Service, parts: Parts) -> None:
    def generate(
        sound: str | None,
        prompt: str,
        negative_prompt: str,
        audio_scale: float,
        relation: str,
        foreground: float,
        background: float,
        ambience: float,
        guidance_scale: float,
        steps: int,
        pictures: int,
        seed: int,
        base: str,
        encoder: str,
        adapter: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, Any, str]]:
        """Pictures of a sound, their settings, and what is said of them."""
        given = {name: value for name, value in locals().items() if name in parts.wishes}
        try:
            for images, made, said in service.generate(sound, given, str(request.session_hash)):
                yield (gr.skip() if images is None else images), made or gr.skip(), said
        except Refusal as refusal:
            yield gr.skip(), gr.skip(), words.status(str(refusal), alert=True)
            # A client's call fails with the sentence; the page shows it in its own place.
            raise gr.Error(
                escape(str(refusal), quote=False), visible=False, print_exception=False
            ) from None

    drawing = parts.draw.click(
        generate, [parts.sound, *parts.wishes.values()],
        [parts.pictures, parts.settings, parts.status],
        api_name="generate", show_progress="minimal", show_progress_on=parts.pictures,
        js=_scroll_to("#status"),  # on a phone, what happens lies below what was pressed
    )  # fmt: skip
    drawing.success(
        lambda pictures, made, history: _remember(service, pictures, made, history),
        [parts.pictures, parts.settings, parts.history], [parts.history, parts.earlier],
        queue=False, show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    drawing.success(None, js=_scroll_to("#pictures"), api_visibility="private")

    def stop(request: gr.Request) -> str:
        """Stops the visitor's own drawing."""
        there = service.stops.stop(str(request.session_hash))
        return words.status("Stopping …" if there else "Nothing is being drawn.")

    parts.stop.click(stop, None, parts.status, api_name="stop", queue=False, show_progress="hidden")
    parts.another_seed.click(
        lambda: random.randrange(MAX_SEED), None, parts.wishes["seed"], queue=False,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    parts.earlier.select(
        _recall, parts.history, parts.settings, queue=False, api_visibility="private",
        show_progress="hidden",
    )  # fmt: skip


def _scroll_to(name: str) -> str:
    """A script that brings a part of the page into sight, if it is not, once it is laid out."""
    seen = f"document.querySelector('{name}').scrollIntoView({{block: 'nearest'}})"
    return f"(...given) => {{ setTimeout(() => {seen}, 300); return given }}"


def _remember(
    service: Service, pictures: list[Any] | None, made: dict[str, Any] | None, history: list[Any]
) -> tuple[list[Any], list[tuple[str, str]]]:
    """The history with these pictures in front, unless they are there already."""
    new = [(path, said, made) for path, said in pictures or []]
    if history and new and new[0] in history:
        new = []
    history = [*new, *history][: service.options.max_history]
    return history, [(path, said) for path, said, _ in history]


def _recall(history: list[Any], event: gr.SelectData) -> Any:
    return history[event.index][-1] if event.index < len(history) else gr.skip()


def _wire_models(service: Service, parts: Parts) -> None:
    wishes = parts.wishes

    def look_again() -> tuple[Any, ...]:
        found = find(service.options)
        lists = (list(found.base), list(found.encoder), [NONE, *found.adapter])
        return tuple(gr.Dropdown(choices=names) for names in lists)

    def base_for(encoder: str) -> Any:
        base = base_of(encoder, find(service.options))
        return base or gr.skip()

    parts.look_again.click(
        look_again, None, [wishes["base"], wishes["encoder"], wishes["adapter"]],
        api_visibility="private", queue=False, show_progress="hidden",
    )  # fmt: skip
    wishes["encoder"].change(
        base_for, wishes["encoder"], wishes["base"], api_visibility="private", queue=False,
        show_progress="hidden",
    )  # fmt: skip
    wishes["base"].change(
        words.notice, wishes["base"], parts.notice, api_visibility="private", queue=False,
        show_progress="hidden",
    )  # fmt: skip
    gr.api(service.names, api_name="models")
