"""Components of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from diffuse.models.levels import LEVELS
from soundprompt.app import messages
from soundprompt.app.examples import example_audio
from soundprompt.app.models import NO_ADAPTER, find_models
from soundprompt.app.service import AppService
from soundprompt.app.validation import MAX_GUIDANCE, MAX_SCALE, RELATION_CHOICES


@dataclass
class PageComponents:
    """Components of the page; `inputs` are the fields of a generation request by name."""

    notice: Any
    audio: Any
    examples: Any
    audio_plot: Any
    inputs: dict[str, Any]
    random_seed: Any
    refresh_models: Any
    generate: Any
    stop: Any
    status: Any
    images: Any
    metadata: Any
    history: Any
    history_gallery: Any


def build_layout(service: AppService) -> PageComponents:
    """Add all components to the page that is being built.

    Args:
        service: Service behind the page, for its limits and models.
    """
    gr.Markdown("# SoundPrompt\nGenerate images from audio.", elem_id="title")
    notice = gr.Markdown(messages.notice(service.options.base_model), elem_id="notice")
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            audio, examples = _audio_input(service)
            inputs: dict[str, Any] = {"prompt": _prompt_input(service)}
            with gr.Row(elem_id="actions"):
                generate = gr.Button(
                    "Generate", variant="primary", elem_id="generate", scale=3, min_width=120
                )
                stop = gr.Button("Stop", variant="stop", elem_id="stop", scale=1, min_width=80)
            status = gr.HTML(messages.status(messages.IDLE), elem_id="status")
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                random_seed = _generation_inputs(service, inputs)
                _disable_gradio_limits(inputs)
            with gr.Accordion("Models", open=False, elem_id="models"):
                refresh_models = _model_inputs(service, inputs)
        with gr.Column(scale=6, min_width=320):
            audio_plot = _audio_plot()
            results = _results()
    return PageComponents(
        notice=notice, audio=audio, examples=examples, audio_plot=audio_plot, inputs=inputs,
        random_seed=random_seed, refresh_models=refresh_models, generate=generate, stop=stop,
        status=status, **results,
    )  # fmt: skip


def _audio_input(service: AppService) -> tuple[Any, Any]:
    audio = gr.Audio(
        label=f"Audio (up to {service.options.max_audio_s:g} s)",
        sources=["upload", "microphone"],
        type="filepath",
        elem_id="audio",
        buttons=[],
    )
    paths = example_audio()
    examples = gr.Dataset(
        label="Examples",
        components=[gr.Textbox(visible=False)],
        samples=[[name] for name in paths],
        sample_labels=[name.capitalize() for name in paths],
        type="index",
        elem_id="examples",
    )
    return audio, examples


def _audio_plot() -> Any:
    return gr.Image(
        label="Waveform and spectrogram",
        alt_text="Waveform and spectrogram of the audio",  # also names its button
        show_label=False,  # it would cover the plot
        elem_id="audio_plot",
        interactive=False,
        visible=False,
        buttons=["fullscreen"],
        format="png",
    )


def _prompt_input(service: AppService) -> Any:
    return gr.Textbox(
        value="",  # optional in the API
        label="Prompt (optional)",
        info="Leave it empty to condition on audio only.",
        placeholder="at night",
        max_length=service.options.max_prompt_length,
        elem_id="prompt",
    )


def _disable_gradio_limits(inputs: dict[str, Any]) -> None:
    """Leave the limits of the fields to `validation.validate_request`, which names the field.

    The message of Gradio ("Value 0 is less than minimum value 1.") does not. This is no subclass
    because Gradio writes a stub file next to the source of each component class.
    """
    for field in inputs.values():
        field.preprocess = lambda payload: payload


def _generation_inputs(service: AppService, inputs: dict[str, Any]) -> Any:
    options = service.options
    inputs["negative_prompt"] = gr.Textbox(
        value="",
        label="Negative prompt (optional)",
        info="What the images should not show.",
        max_length=options.max_prompt_length,
        elem_id="negative_prompt",
    )
    inputs["audio_scale"] = gr.Slider(
        0,
        MAX_SCALE,
        1.0,
        step=0.05,
        label="Audio scale",
        info="Strength of the audio conditioning.",
    )
    inputs["relation"] = gr.Dropdown(
        list(RELATION_CHOICES), value="auto", label="Relation",
        info="How prompt and audio are combined; auto classifies their relation.",
    )  # fmt: skip
    with gr.Row():
        for level in LEVELS:
            inputs[level] = gr.Slider(
                0, MAX_SCALE, 1.0, step=0.05, label=level.capitalize(), min_width=140,
                info="Requires an adapter.",
            )  # fmt: skip
    with gr.Row():
        inputs["guidance_scale"] = gr.Slider(
            1, MAX_GUIDANCE, 5.0, step=0.5, label="Guidance scale", min_width=140,
            info="Classifier-free guidance.",
        )  # fmt: skip
        inputs["num_inference_steps"] = gr.Slider(
            1, options.max_inference_steps, min(20, options.max_inference_steps), step=1,
            label="Steps", min_width=140, info="Number of denoising steps.",
        )  # fmt: skip
    with gr.Row():
        inputs["num_images"] = gr.Slider(
            1, options.max_images, min(2, options.max_images), step=1, label="Images",
            min_width=140,
        )  # fmt: skip
        inputs["seed"] = gr.Number(
            0, precision=0, minimum=0, label="Seed", min_width=140,
            info="Seed of the first image; image i uses seed + i.",
        )  # fmt: skip
    return gr.Button("Random seed", size="sm")


def _model_inputs(service: AppService, inputs: dict[str, Any]) -> Any:
    options, found, first = service.options, find_models(service.options), service.default_models
    hub = " You can also enter a Hub id (owner/name)." if options.allow_hub else ""
    dropdowns = {
        "base_model": (first.base_model, found.base_model, "Generates the images." + hub),
        "encoder": (first.encoder, found.encoder, "Encodes the audio; trained for one base model."),
        "adapter": (first.adapter, (NO_ADAPTER, *found.adapter), "Conditions the UNet on audio."),
    }
    for kind, (value, choices, info) in dropdowns.items():
        inputs[kind] = gr.Dropdown(
            list(dict.fromkeys([*choices, value])), value=value,
            label=kind.replace("_", " ").capitalize(), info=info, allow_custom_value=True,
            elem_id=kind,
        )  # fmt: skip
    refresh_models = gr.Button("Refresh models", size="sm")
    gr.Markdown(messages.FULL_SIZE_MODELS, elem_id="full_size_models")
    return refresh_models


def _results() -> dict[str, Any]:
    images = gr.Gallery(
        label="Images", show_label=False, columns=2, height="auto", object_fit="contain",
        format="png", interactive=False, elem_id="images", buttons=["download", "fullscreen"],
    )  # fmt: skip
    with gr.Accordion("Metadata", open=False, elem_id="metadata_panel"):
        metadata = gr.JSON(label="Metadata", elem_id="metadata", buttons=["copy"], max_height=640)
    with gr.Accordion("History", open=False, elem_id="history_panel"):
        gr.Markdown("Newest first. Select an image to show its metadata above.")
        history_gallery = gr.Gallery(
            label="History", show_label=False, columns=4, fit_columns=False,
            height="auto", object_fit="contain", format="png", interactive=False,
            allow_preview=False, elem_id="history_gallery", buttons=[],
        )  # fmt: skip
    return {
        "images": images, "metadata": metadata,
        "history": gr.State([]), "history_gallery": history_gallery,
    }  # fmt: skip
