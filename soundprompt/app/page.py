"""Event handlers of the page and their API endpoints."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from align.audio.files import AudioError
from soundprompt.app import messages
from soundprompt.app.audio_input import plot_audio, read_upload
from soundprompt.app.examples import example_audio
from soundprompt.app.layout import PageComponents, build_layout
from soundprompt.app.models import NO_ADAPTER, base_model_of, find_models
from soundprompt.app.service import AppService, RequestError
from soundprompt.app.theme import CSS, theme
from soundprompt.app.validation import MAX_SEED

HOUR_S = 3600


def build_app(service: AppService) -> gr.Blocks:
    """Build the app without launching it.

    Args:
        service: Service that handles the requests.
    """
    # Uploaded and generated files are deleted a day after their creation.
    with gr.Blocks(
        title="SoundPrompt", analytics_enabled=False, delete_cache=(HOUR_S, 24 * HOUR_S)
    ) as page:
        parts = build_layout(service)
        _connect_audio(service, parts)
        _connect_generation(service, parts)
        _connect_models(service, parts)

        def leave(request: gr.Request) -> None:
            service.jobs.stop(str(request.session_hash))

        page.unload(leave)
    page.queue(max_size=service.options.max_queue_size, default_concurrency_limit=1)
    return page


def launch_kwargs(service: AppService) -> dict[str, Any]:
    """Keyword arguments of `Blocks.launch`.

    Args:
        service: Service that handles the requests.
    """
    options = service.options
    return {
        "server_name": options.server_name,
        "server_port": options.server_port or _port_of_environment(),
        "max_file_size": int(options.max_upload_mb * 1_000_000),
        "theme": theme(),
        "css_paths": CSS,
        "footer_links": ["api", "settings"],
        "run_history": False,  # do not keep the audio of users
        "enable_monitoring": False,
        "ssr_mode": False,
        "share": False,
    }


def _port_of_environment() -> int | None:
    # As an argument, this is the only port tried. Gradio itself would try the next hundred ports
    # and serve on an unexpected one.
    port = os.environ.get("GRADIO_SERVER_PORT", "")
    return int(port) if port.isdigit() else None


def _connect_audio(service: AppService, parts: PageComponents) -> None:
    def preview(audio: str | None) -> tuple[Any, str]:
        """Plot waveform and spectrogram of the audio; returns the plot and the status."""
        if audio is None:
            return gr.Image(value=None, visible=False), messages.status(messages.IDLE)
        try:
            uploaded = read_upload(audio, service.options)
        except AudioError as error:
            hidden = gr.Image(value=None, visible=False)
            return hidden, messages.status(str(error), alert=True)
        return (
            gr.Image(value=plot_audio(uploaded), visible=True),
            messages.audio_summary(uploaded.duration_s, uploaded.decode_warnings),
        )

    paths = list(example_audio().values())
    parts.examples.click(
        lambda i: paths[i], parts.examples, parts.audio, api_visibility="private",
        show_progress="hidden",
    )  # fmt: skip
    parts.audio.change(
        preview, parts.audio, [parts.audio_plot, parts.status], api_name="preview",
        concurrency_limit=4, concurrency_id="light", show_progress="hidden",
        trigger_mode="always_last",
    )  # fmt: skip


def _connect_generation(service: AppService, parts: PageComponents) -> None:
    def generate(
        audio: str | None,
        prompt: str,
        negative_prompt: str,
        audio_scale: float,
        relation: str,
        foreground: float,
        background: float,
        ambience: float,
        guidance_scale: float,
        num_inference_steps: int,
        num_images: int,
        seed: int,
        base_model: str,
        encoder: str,
        adapter: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, Any, str]]:
        """Generate images from audio; returns images, metadata and status."""
        given = {name: value for name, value in locals().items() if name in parts.inputs}
        try:
            for images, metadata, status in service.generate(
                audio, given, str(request.session_hash)
            ):
                yield (gr.skip() if images is None else images), metadata or gr.skip(), status
        except RequestError as error:
            yield gr.skip(), gr.skip(), messages.status(str(error), alert=True)
            # API clients get the message as an error; the page shows it in the status line.
            raise gr.Error(
                escape(str(error), quote=False), visible=False, print_exception=False
            ) from None

    generation = parts.generate.click(
        generate, [parts.audio, *parts.inputs.values()],
        [parts.images, parts.metadata, parts.status],
        api_name="generate", show_progress="minimal", show_progress_on=parts.images,
        js=_scroll_to("#status"),  # on a phone, the status is below the button
    )  # fmt: skip
    generation.success(
        lambda images, metadata, history: _add_to_history(service, images, metadata, history),
        [parts.images, parts.metadata, parts.history], [parts.history, parts.history_gallery],
        queue=False, show_progress="hidden", api_visibility="private",
    )  # fmt: skip

    generation.success(None, js=_scroll_to("#images"), api_visibility="private")

    def stop(request: gr.Request) -> str:
        """Stop the generation of the session; returns the status."""
        is_running = service.jobs.stop(str(request.session_hash))
        return messages.status("Stopping …" if is_running else "No generation is running.")

    parts.stop.click(stop, None, parts.status, api_name="stop", queue=False, show_progress="hidden")
    parts.random_seed.click(
        lambda: random.randrange(MAX_SEED), None, parts.inputs["seed"], queue=False,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    parts.history_gallery.select(
        _show_history_entry, parts.history, parts.metadata, queue=False, api_visibility="private",
        show_progress="hidden",
    )  # fmt: skip


def _scroll_to(name: str) -> str:
    """JavaScript that scrolls an element into view after the page is updated."""
    script = f"document.querySelector('{name}').scrollIntoView({{block: 'nearest'}})"
    return f"(...given) => {{ setTimeout(() => {script}, 300); return given }}"


def _add_to_history(
    service: AppService,
    images: list[Any] | None,
    metadata: dict[str, Any] | None,
    history: list[Any],
) -> tuple[list[Any], list[tuple[str, str]]]:
    """Prepend images to the history, unless it contains them already."""
    new = [(path, caption, metadata) for path, caption in images or []]
    if history and new and new[0] in history:
        new = []
    history = [*new, *history][: service.options.max_history]
    return history, [(path, caption) for path, caption, _ in history]


def _show_history_entry(history: list[Any], event: gr.SelectData) -> Any:
    return history[event.index][-1] if event.index < len(history) else gr.skip()


def _connect_models(service: AppService, parts: PageComponents) -> None:
    inputs = parts.inputs

    def refresh_models() -> tuple[Any, ...]:
        found = find_models(service.options)
        lists = (list(found.base_model), list(found.encoder), [NO_ADAPTER, *found.adapter])
        return tuple(gr.Dropdown(choices=names) for names in lists)

    def base_model_for(encoder: str) -> Any:
        base_model = base_model_of(encoder, find_models(service.options))
        return base_model or gr.skip()

    parts.refresh_models.click(
        refresh_models, None, [inputs["base_model"], inputs["encoder"], inputs["adapter"]],
        api_visibility="private", queue=False, show_progress="hidden",
    )  # fmt: skip
    inputs["encoder"].change(
        base_model_for, inputs["encoder"], inputs["base_model"], api_visibility="private",
        queue=False, show_progress="hidden",
    )  # fmt: skip
    inputs["base_model"].change(
        messages.notice, inputs["base_model"], parts.notice, api_visibility="private", queue=False,
        show_progress="hidden",
    )  # fmt: skip
    gr.api(service.model_names, api_name="models")
