"""What a pipeline reads: which prompt space fits it, and whether a prompt does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from align.heads import SpaceShape
from align.names import BASES, lookup


@dataclass(frozen=True)
class Reader:
    """The side of a pipeline that reads prompt embeds.

    Attributes:
        name: the pipeline's class.
        base: the folder or hub id that it came from.
        width: of the embeds it reads.
        pooled_width: of the pooled embeds, 0 where it reads none.
        dtype: of its weights.
        device: where it runs.
    """

    name: str
    base: str
    width: int
    pooled_width: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, pipeline: Any) -> Reader:
        """Asks a pipeline's UNet or transformer.

        Raises:
            ValueError: it has neither, reads no embeds, or its parts want different ones.
        """
        name = type(pipeline).__name__
        drawing = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
        if drawing is None:
            raise ValueError(f"this {name} has no UNet or transformer loaded: it cannot draw")
        width = _width(drawing.config)
        if not width:
            raise ValueError(f"the {type(drawing).__name__} of this {name} reads no prompt embeds")
        for controlnet in _controlnets(pipeline):
            own = _width(controlnet.config)
            if own != width:
                raise ValueError(
                    f"the ControlNet reads embeds {own} wide and the {type(drawing).__name__} "
                    f"{width}: they belong to different bases"
                )
        base = str(pipeline.config.get("_name_or_path", ""))
        pooled = _pooled_width(pipeline, drawing.config)
        return cls(name, base, width, pooled, drawing.dtype, pipeline._execution_device)

    @property
    def wants(self) -> str:
        """What it reads, in words."""
        return f"{self.name} reads embeds {_words(self.width, self.pooled_width)}"

    def choose(self, spaces: Mapping[str, SpaceShape], default: str | None) -> str:
        """The prompt space that fits: the base's own, else the default, else the only one.

        Raises:
            ValueError: none fits, or several do.
        """
        fits = [name for name, shape in spaces.items() if self.fits(shape)]
        if not fits:
            raise ValueError(f"{self.wants}; this encoder has {_list(spaces)}")
        own = [n for n in fits if self.base in (spaces[n].base, lookup(BASES, spaces[n].base))]
        if own or default in fits or len(fits) == 1:
            return own[0] if own else str(default) if default in fits else fits[0]
        raise ValueError(f"{', '.join(fits)} all fit this {self.name}: say which by space=")

    def fits(self, shape: SpaceShape) -> bool:
        """Whether embeds of a space are as wide as what is read."""
        wide = (shape.pipeline_width, shape.pooled_width)
        return wide == (self.width, self.pooled_width)


def check_prompt(pipeline: Any, prompt: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The prompt's keyword arguments, once they are known to fit a pipeline.

        pipeline(**check_prompt(pipeline, load_file("dog.safetensors")))

    Raises:
        ValueError: by name, what is missing or has the wrong width, length, dtype or device.
    """
    reader = Reader.of(pipeline)
    widths = {"prompt_embeds": reader.width, "negative_prompt_embeds": reader.width}
    if reader.pooled_width:
        widths["pooled_prompt_embeds"] = reader.pooled_width
        widths["negative_pooled_prompt_embeds"] = reader.pooled_width
    optional = {name for name in widths if name.startswith("negative")}
    for name in sorted(set(widths) - optional - set(prompt)):
        raise ValueError(f"{name} is missing: {reader.wants}")
    for name, value in prompt.items():
        if name not in widths:
            raise ValueError(f"{name} is not read here: {reader.wants}")
        _check(name, value, widths[name], reader)
    for name in optional & set(prompt):
        _check_pair(name.removeprefix("negative_"), name, prompt)
    batches = {len(value) for value in prompt.values()}
    if len(batches) > 1:
        raise ValueError(f"the embeds are of different numbers of prompts: {sorted(batches)}")
    return dict(prompt)


def _check(name: str, value: torch.Tensor, width: int, reader: Reader) -> None:
    axes = ("prompts", "width") if "pooled" in name else ("prompts", "positions", "width")
    if value.ndim != len(axes):
        raise ValueError(f"{name} must be ({', '.join(axes)}), not {tuple(value.shape)}")
    if value.shape[-1] != width:
        raise ValueError(f"{name} is {value.shape[-1]} wide, but {reader.wants}")
    if value.dtype != reader.dtype:
        raise ValueError(f"{name} is {value.dtype}, but this {reader.name} runs in {reader.dtype}")
    if value.device.type != reader.device.type:
        raise ValueError(f"{name} is on {value.device}, but this {reader.name} on {reader.device}")


def _check_pair(name: str, negative: str, prompt: Mapping[str, torch.Tensor]) -> None:
    if prompt[name].shape != prompt[negative].shape:
        raise ValueError(
            f"{name} and {negative} must be of one shape, not {tuple(prompt[name].shape)} and "
            f"{tuple(prompt[negative].shape)}"
        )


def _width(config: Any) -> int:
    if config.get("encoder_hid_dim_type") == "text_proj":
        return int(config.encoder_hid_dim)
    width = config.get("joint_attention_dim") or config.get("cross_attention_dim") or 0
    return int(width[0] if isinstance(width, (list, tuple)) else width)


def _pooled_width(pipeline: Any, config: Any) -> int:
    if "joint_attention_dim" in config:
        return int(config.pooled_projection_dim)
    if config.get("addition_embed_type") != "text_time":
        return 0
    # Beside the pooled embeds stand sizes and crops as numbers; SDXL's refiner has one fewer.
    numbers = 5 if pipeline.config.get("requires_aesthetics_score") else 6
    return int(
        config.projection_class_embeddings_input_dim - numbers * config.addition_time_embed_dim
    )


def _controlnets(pipeline: Any) -> list[Any]:
    found = getattr(pipeline, "controlnet", None)
    return [] if found is None else list(getattr(found, "nets", [found]))


def _words(width: int, pooled_width: int) -> str:
    return f"{width} wide" + (f" and pooled ones {pooled_width} wide" if pooled_width else "")


def _list(spaces: Mapping[str, SpaceShape]) -> str:
    each = (f"{n} ({_words(s.pipeline_width, s.pooled_width)})" for n, s in spaces.items())
    return ", ".join(each) or "no prompt space"
