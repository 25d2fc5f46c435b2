"""What is on the page, part by part, before anything is wired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from diffuse.models.levels import LEVELS
from soundprompt.app import messages as words
from soundprompt.app.examples import example_sounds
from soundprompt.app.models import NONE, find
from soundprompt.app.service import Service
from soundprompt.app.validation import MAX_GUIDANCE, MAX_SCALE, RELATION


@dataclass
class Parts:
    """The page's components by what they are for; `wishes` are the fields of a drawing."""

    notice: Any
    sound: Any
    examples: Any
    portrait: Any
    wishes: dict[str, Any]
    another_seed: Any
    look_again: Any
    draw: Any
    stop: Any
    status: Any
    pictures: Any
    settings: Any
    history: Any
    earlier: Any


def lay_out(service: Service) -> Parts:
    """Puts everything on the page that is being built."""
    gr.Markdown("# SoundPrompt\nSound is the prompt: a recording draws a picture.", elem_id="title")
    notice = gr.Markdown(words.notice(service.options.base), elem_id="notice")
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            sound, examples = _sound(service)
            wishes: dict[str, Any] = {"prompt": _prompt(service)}
            with gr.Row(elem_id="go"):
                draw = gr.Button("Draw", variant="primary", elem_id="draw", scale=3, min_width=120)
                stop = gr.Button("Stop", variant="stop", elem_id="stop", scale=1, min_width=80)
            status = gr.HTML(words.status(words.BEGIN), elem_id="status")
            with gr.Accordion("More settings", open=False, elem_id="more"):
                another_seed = _settings(service, wishes)
                _leave_limits_to_the_service(wishes)
            with gr.Accordion("Models", open=False, elem_id="models"):
                look_again = _models(service, wishes)
        with gr.Column(scale=6, min_width=320):
            portrait = _portrait()
            results = _results()
    return Parts(
        notice=notice, sound=sound, examples=examples, portrait=portrait, wishes=wishes,
        another_seed=another_seed, look_again=look_again, draw=draw, stop=stop, status=status,
        **results,
    )  # fmt: skip


def _sound(service: Service) -> tuple[Any, Any]:
    sound = gr.Audio(
        label=f"Sound (up to {service.options.max_sound_s:g} s)",
        sources=["upload", "microphone"],
        type="filepath",
        elem_id="sound",
        buttons=[],
    )
    sounds = example_sounds()
    examples = gr.Dataset(
        label="Examples",
        components=[gr.Textbox(visible=False)],
        samples=[[name] for name in sounds],
        sample_labels=[name.capitalize() for name in sounds],
        type="index",
        elem_id="examples",
    )
    return sound, examples


def _portrait() -> Any:
    return gr.Image(
        label="Waveform and spectrogram",
        alt_text="Waveform and spectrogram of the sound",  # also the name of its button
        show_label=False,  # it would lie on the picture, whose axes say as much
        elem_id="portrait",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        format="png",
    )


def _prompt(service: Service) -> Any:
    return gr.Textbox(
        value="",  # a client may leave it out
        label="Text (optional)",
        info="Left empty, the sound alone is the prompt.",
        placeholder="at night",
        max_length=service.options.max_text,
        elem_id="prompt",
    )


def _leave_limits_to_the_service(wishes: dict[str, Any]) -> None:
    """Hands values on as they were sent: `wishes.checked` names the field that is out of range.

    Gradio's own refusal says "Value 0 is less than minimum value 1." of any field. A subclass
    would be the usual way, but Gradio writes a stub file beside the source of each.
    """
    for field in wishes.values():
        field.preprocess = lambda payload: payload


def _settings(service: Service, wishes: dict[str, Any]) -> Any:
    options = service.options
    wishes["negative_prompt"] = gr.Textbox(
        value="",
        label="Negative text (optional)",
        info="What the pictures should keep away from.",
        max_length=options.max_text,
        elem_id="negative_prompt",
    )
    wishes["audio_scale"] = gr.Slider(
        0, MAX_SCALE, 1.0, step=0.05, label="Audio scale", info="How much the sound counts."
    )
    wishes["relation"] = gr.Dropdown(
        list(RELATION), value="auto", label="Text and sound",
        info="How they are put together; auto judges it, where there is a text.",
    )  # fmt: skip
    with gr.Row():
        for level in LEVELS:
            wishes[level] = gr.Slider(
                0, MAX_SCALE, 1.0, step=0.05, label=level.capitalize(), min_width=140,
                info="Needs an adapter.",
            )  # fmt: skip
    with gr.Row():
        wishes["guidance_scale"] = gr.Slider(
            1, MAX_GUIDANCE, 5.0, step=0.5, label="Guidance", min_width=140,
            info="How strictly the prompt is followed.",
        )  # fmt: skip
        wishes["steps"] = gr.Slider(
            1, options.max_steps, min(20, options.max_steps), step=1, label="Steps", min_width=140,
            info="More are finer and slower.",
        )  # fmt: skip
    with gr.Row():
        wishes["pictures"] = gr.Slider(
            1, options.max_pictures, min(2, options.max_pictures), step=1, label="Pictures",
            min_width=140,
        )  # fmt: skip
        wishes["seed"] = gr.Number(
            0, precision=0, minimum=0, label="Seed", min_width=140,
            info="The same seed draws the same picture.",
        )  # fmt: skip
    return gr.Button("Another seed", size="sm")


def _models(service: Service, wishes: dict[str, Any]) -> Any:
    options, found, first = service.options, find(service.options), service.first
    hub = " A hub id (owner/name) can be typed as well." if options.hub else ""
    said = {
        "base": (first.base, found.base, "Draws the picture." + hub),
        "encoder": (first.encoder, found.encoder, "Hears; made for one base."),
        "adapter": (first.adapter, (NONE, *found.adapter), "Sound inside the UNet."),
    }
    for kind, (value, choices, info) in said.items():
        wishes[kind] = gr.Dropdown(
            list(dict.fromkeys([*choices, value])), value=value, label=kind.capitalize(),
            info=info, allow_custom_value=True, elem_id=kind,
        )  # fmt: skip
    look_again = gr.Button("Look through the folders again", size="sm")
    gr.Markdown(words.REAL_MODELS, elem_id="real")
    return look_again


def _results() -> dict[str, Any]:
    pictures = gr.Gallery(
        label="Pictures", show_label=False, columns=2, height="auto", object_fit="contain",
        format="png", interactive=False, elem_id="pictures", buttons=["download", "fullscreen"],
    )  # fmt: skip
    with gr.Accordion("Settings of the pictures", open=False, elem_id="made"):
        settings = gr.JSON(label="Settings", elem_id="settings", buttons=["copy"], max_height=640)
    with gr.Accordion("Earlier pictures", open=False, elem_id="before"):
        gr.Markdown("Newest first. Choosing one shows its settings above.")
        earlier = gr.Gallery(
            label="Earlier pictures", show_label=False, columns=4, fit_columns=False,
            height="auto", object_fit="contain", format="png", interactive=False,
            allow_preview=False, elem_id="earlier", buttons=[],
        )  # fmt: skip
    return {
        "pictures": pictures, "settings": settings,
        "history": gr.State([]), "earlier": earlier,
    }  # fmt: skip
