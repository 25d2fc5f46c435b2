"""Determine which prompt embeds a pipeline takes, and which prompt space fits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch

from align.prompts.embeds import SpaceShape
from align.registry import BASE_MODELS, lookup

# Components that take the embeds in Stable Diffusion, SD3 and the Stable Cascade pipelines.
DENOISER_NAMES = ("unet", "transformer", "prior", "prior_prior", "decoder")
WIDTH_KEYS = ("joint_attention_dim", "cross_attention_dim", "clip_text_in_channels", "c_cond")


@dataclass(frozen=True)
class PipelineSpec:
    """Prompt embeds that a pipeline takes.

    Attributes:
        name: Class name of the pipeline.
        base_model: Folder or Hub id of the pipeline.
        width: Width of the prompt embeds; 0 if the denoiser uses only the pooled embeds.
        pooled_width: Width of the pooled embeds; 0 if it takes none.
        dtype: Data type of the denoiser's weights.
        device: Device of the pipeline.
        arguments: Our names of the prompt arguments to those of the pipeline's call.
    """

    name: str
    base_model: str
    width: int
    pooled_width: int
    dtype: torch.dtype
    device: torch.device
    arguments: dict[str, str]

    @classmethod
    def from_pipeline(cls, pipeline: Any) -> PipelineSpec:
        """Inspect the call signature and the denoiser of a pipeline.

        Args:
            pipeline: Diffusers pipeline with a loaded UNet or transformer.

        Raises:
            ValueError: If it takes no CLIP embeds, has no denoiser, or its components expect
                different widths.
        """
        name = type(pipeline).__name__
        arguments = prompt_arguments(pipeline)
        parts = (getattr(pipeline, part, None) for part in DENOISER_NAMES)
        denoiser = next((part for part in parts if part is not None), None)
        if denoiser is None:
            raise ValueError(
                f"this {name} has no UNet or transformer loaded, so it cannot generate"
            )
        width, pooled = _width(denoiser.config), _pooled_width(pipeline, denoiser.config, arguments)
        if not width and not pooled:
            raise ValueError(f"the {type(denoiser).__name__} of this {name} takes no prompt embeds")
        if pooled and "pooled_prompt_embeds" not in arguments:
            raise ValueError(
                f"the {type(denoiser).__name__} of this {name} needs pooled embeds, but the "
                "pipeline takes none"
            )
        for controlnet in _controlnets(pipeline):
            own = _width(controlnet.config)
            # SD3.5's ControlNets take no embeds.
            if own not in (0, width):
                raise ValueError(
                    f"the ControlNet takes embeds of width {own} and the "
                    f"{type(denoiser).__name__} {width}: they belong to different base models"
                )
        base_model = str(pipeline.config.get("_name_or_path", ""))
        device = pipeline._execution_device
        return cls(name, base_model, width, pooled, denoiser.dtype, device, arguments)

    @property
    def expected(self) -> str:
        """Description of the expected embeds, for messages."""
        return f"{self.name} takes embeds of {_words(self.width, self.pooled_width)}"

    def select_space(self, spaces: Mapping[str, SpaceShape], default: str | None) -> str:
        """Select the fitting space: that of the same base model, the default, or the only one.

        Args:
            spaces: Shapes of the encoder's prompt spaces by name.
            default: Name of the default prompt space.

        Raises:
            ValueError: If none fits, or several do.
        """
        fits = [name for name, shape in spaces.items() if self.accepts(shape)]
        if not fits:
            raise ValueError(f"{self.expected}; this encoder has {_list(spaces)}")
        own = [
            n
            for n in fits
            if self.base_model in (spaces[n].base_model, lookup(BASE_MODELS, spaces[n].base_model))
        ]
        if own or default in fits or len(fits) == 1:
            return own[0] if own else str(default) if default in fits else fits[0]
        raise ValueError(f"{', '.join(fits)} all fit this {self.name}: select one with space=")

    def check_negative(self) -> None:
        """Check that the pipeline takes a negative prompt.

        Raises:
            ValueError: If it does not.
        """
        if "negative_prompt_embeds" not in self.arguments:
            raise ValueError(f"{self.name} takes no negative prompt: leave negative= out")

    def accepts(self, shape: SpaceShape) -> bool:
        """Return whether embeds of a space have the expected widths."""
        wide = shape.pipeline_width if self.width else 0
        return (wide, shape.pooled_width) == (self.width, self.pooled_width)


def _width(config: Any) -> int:
    if config.get("encoder_hid_dim_type") == "text_proj":
        return int(config.encoder_hid_dim)
    width = next((config[name] for name in WIDTH_KEYS if config.get(name)), 0)
    return int(width[0] if isinstance(width, (list, tuple)) else width)


def _pooled_width(pipeline: Any, config: Any, arguments: Mapping[str, str]) -> int:
    if "joint_attention_dim" in config:
        return int(config.get("pooled_projection_dim") or 0)
    if "clip_text_pooled_in_channels" in config:
        return int(config.clip_text_pooled_in_channels)
    if "pooled_prompt_embeds" in arguments and config.get("time_cond_proj_dim"):
        # The latent upscaler appends the pooled embeds to a noise level embedding of 128 values.
        return int(config.time_cond_proj_dim) - 128
    if config.get("addition_embed_type") != "text_time":
        return 0
    # Sizes and crops are appended to the pooled embeds; SDXL's refiner has one value fewer.
    numbers = 5 if pipeline.config.get("requires_aesthetics_score") else 6
    return int(
        config.projection_class_embeddings_input_dim - numbers * config.addition_time_embed_dim
    )


def _controlnets(pipeline: Any) -> list[Any]:
    found = getattr(pipeline, "controlnet", None)
    return [] if found is None else list(getattr(found, "nets", [found]))


def _words(width: int, pooled_width: int) -> str:
    return f"width {width}" + (
        f" and pooled embeds of width {pooled_width}" if pooled_width else ""
    )


def _list(spaces: Mapping[str, SpaceShape]) -> str:
    each = (f"{n} ({_words(s.pipeline_width, s.pooled_width)})" for n, s in spaces.items())
    return ", ".join(each) or "no prompt space"


def check_prompt(pipeline: Any, prompt: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Validate prompt embeds and return them as keyword arguments of a pipeline.

        pipeline(**check_prompt(pipeline, load_file("dog.safetensors")))

    Negative embeds are dropped if the pipeline takes none. `prompt=None` is added if its call
    requires a prompt.

    Args:
        pipeline: Diffusers pipeline.
        prompt: Embeds by name: prompt_embeds, negative_prompt_embeds and their pooled variants.

    Raises:
        ValueError: If an argument is missing or has the wrong width, length, dtype or device.
    """
    spec = PipelineSpec.from_pipeline(pipeline)
    ours = {theirs: name for name, theirs in spec.arguments.items()}
    prompt = {
        ours.get(name, name): value[:, 0] if value.ndim == 3 and "pooled" in name else value
        for name, value in prompt.items()
        if value is not None
    }
    _check_complete(spec, prompt)
    found: dict[str, Any] = {
        spec.arguments[name]: value[:, None] if spec.arguments[name][-6:] == "pooled" else value
        for name, value in prompt.items()
        if name in spec.arguments
    }
    _check_without_text_encoder(pipeline, found)
    needs_prompt = "prompt_embeds" in found and requires_prompt(pipeline)
    return found | {"prompt": None} if needs_prompt else found


def _check_complete(spec: PipelineSpec, prompt: Mapping[str, torch.Tensor]) -> None:
    widths = {"prompt_embeds": spec.width, "negative_prompt_embeds": spec.width}
    if spec.pooled_width:
        widths["pooled_prompt_embeds"] = spec.pooled_width
        widths["negative_pooled_prompt_embeds"] = spec.pooled_width
    optional = {name for name in widths if name.startswith("negative")}
    for name in sorted(set(widths) - optional - set(prompt)):
        raise ValueError(f"{name} is missing: {spec.expected}")
    for name, value in prompt.items():
        if name not in widths:
            raise ValueError(f"{name} is not used by this pipeline: {spec.expected}")
        _check(name, value, widths[name] or value.shape[-1], spec)
    for name in optional & set(prompt):
        _check_pair(name.removeprefix("negative_"), name, prompt)
    batches = {len(value) for value in prompt.values()}
    if len(batches) > 1:
        raise ValueError(f"the embeds are of different numbers of prompts: {sorted(batches)}")


def _check_without_text_encoder(pipeline: Any, found: Mapping[str, Any]) -> None:
    """Whether a pipeline without text encoder lets embeds pass, as Stable Cascade's do not."""
    name = type(pipeline).__name__
    settings = {
        "device": pipeline._execution_device,
        "do_classifier_free_guidance": any(k.startswith("negative") for k in found),
        "num_images_per_prompt": 1,
        "batch_size": len(next(iter(found.values()))),
        **dict.fromkeys(("prompt", "prompt_2", "prompt_3")),
    }
    # Combined pipelines have the pipelines that they combine as attributes.
    for part in (pipeline, *vars(pipeline).values()):
        absent = _missing_text_encoders(part)
        if not absent or not hasattr(part, "encode_prompt"):
            continue
        try:
            part.encode_prompt(**filter_kwargs(part.encode_prompt, settings | dict(found)))
        except (AttributeError, TypeError) as error:
            if "NoneType" in str(error):
                raise ValueError(
                    f"{name} runs its text encoder even when embeds are given: load it with "
                    f"{' and '.join(absent)}"
                ) from error


def _missing_text_encoders(pipeline: Any) -> list[str]:
    parts = getattr(pipeline, "__dict__", {})
    return [k for k, v in parts.items() if k.startswith("text_encoder") and v is None]


def _check(name: str, value: torch.Tensor, width: int, spec: PipelineSpec) -> None:
    axes = ("prompts", "width") if "pooled" in name else ("prompts", "positions", "width")
    if value.ndim != len(axes):
        raise ValueError(f"{name} must have shape ({', '.join(axes)}), not {tuple(value.shape)}")
    if value.shape[-1] != width:
        raise ValueError(f"{name} has width {value.shape[-1]}, but {spec.expected}")
    if value.dtype != spec.dtype:
        raise ValueError(f"{name} is {value.dtype}, but this {spec.name} runs in {spec.dtype}")
    if value.device.type != spec.device.type:
        raise ValueError(f"{name} is on {value.device}, but this {spec.name} on {spec.device}")


def _check_pair(name: str, negative: str, prompt: Mapping[str, torch.Tensor]) -> None:
    if prompt[name].shape != prompt[negative].shape:
        raise ValueError(
            f"{name} and {negative} must have the same shape, not {tuple(prompt[name].shape)} and "
            f"{tuple(prompt[negative].shape)}"
        )


# Prompt arguments by their usual name, with the names that pipelines use for them: LEDITS++ and
# semantic guidance take an edit prompt, Stable Cascade puts "pooled" last.
PROMPT_ARGUMENT_NAMES = {
    "prompt_embeds": ("prompt_embeds", "editing_prompt_embeds", "editing_prompt_embeddings"),
    "negative_prompt_embeds": ("negative_prompt_embeds",),
    "pooled_prompt_embeds": ("pooled_prompt_embeds", "prompt_embeds_pooled"),
    "negative_pooled_prompt_embeds": (
        "negative_pooled_prompt_embeds", "negative_prompt_embeds_pooled",
    ),
}  # fmt: skip


def prompt_arguments(pipeline: Any) -> dict[str, str]:
    """Return the prompt arguments of a pipeline's call: our names to its own.

    Args:
        pipeline: Diffusers pipeline.

    Raises:
        ValueError: If it takes no prompt embeds, takes those of other text encoders than CLIP, or
            needs the text as well.
    """
    kind = type(pipeline)
    name = kind.__name__
    taken = signature(kind.__call__).parameters
    listed_arguments = [
        k for k in taken if "embed" in k or ("prompt" in k and "per_prompt" not in k)
    ]
    if not listed_arguments and any(p.kind is Parameter.VAR_KEYWORD for p in taken.values()):
        return {
            ours: ours for ours in PROMPT_ARGUMENT_NAMES
        }  # a call that forwards all of its arguments
    found = {ours: k for ours, names in PROMPT_ARGUMENT_NAMES.items() for k in names if k in taken}
    if "prompt_embeds" not in found:
        listed = ", ".join(listed_arguments) or "none at all"
        raise ValueError(f"{name} takes no prompt embeds; its prompt arguments are: {listed}")
    others = non_clip_encoders(_text_encoders(kind))
    if others:
        raise ValueError(
            f"{name} takes the embeds of {', '.join(others)}, which an encoder aligned with CLIP "
            "cannot provide"
        )
    if hasattr(pipeline, "_encode_prior_prompt"):
        raise ValueError(f"the prior of this {name} needs the text itself, embeds are not enough")
    if found["prompt_embeds"] != "prompt_embeds":
        # Edit prompts share one image, so a negative has no place: the pipeline uses its own.
        return {"prompt_embeds": found["prompt_embeds"]}
    return found


def non_clip_encoders(kinds: Sequence[str]) -> list[str]:
    """Return the text encoders other than CLIP that a pipeline's prompt embeds depend on.

    With two CLIP encoders and another language model, as in Stable Diffusion 3, CLIP provides
    prompt embeds as well, and the other part may stay zero. With one CLIP encoder, as in Flux,
    CLIP provides only the pooled embeds.

    Args:
        kinds: Class names of the pipeline's text encoders.
    """
    others = [kind for kind in kinds if "CLIP" not in kind]
    return others if len(kinds) - len(others) < 2 else []


def _text_encoders(kind: Any) -> list[str]:
    """Return the class names of a pipeline's text encoders from its annotations."""
    annotated = signature(kind.__init__).parameters.items()
    found = [p.annotation for name, p in annotated if name.startswith("text_encoder")]
    named = [
        a.__name__ if isinstance(a, type) else str(a) for a in found if a is not Parameter.empty
    ]
    # "a.module.Name | None" becomes "Name".
    return [name.split(" | ")[0].split(".")[-1] for name in named]


def filter_kwargs(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given keyword arguments that a function accepts."""
    taken = signature(function).parameters
    return {name: value for name, value in given.items() if name in taken}


def requires_prompt(pipeline: Any) -> bool:
    """Return whether a pipeline's call requires `prompt=None` next to embeds."""
    prompt = signature(type(pipeline).__call__).parameters.get("prompt")
    return prompt is not None and prompt.default is Parameter.empty
