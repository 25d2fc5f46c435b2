"""What a pipeline reads, and which prompt space fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from align.heads import SpaceShape
from align.keywords import keywords_of
from align.names import BASES, lookup

# What reads the embeds: in Stable Diffusion, in SD3, and in Stable Cascade's three pipelines.
DRAWING = ("unet", "transformer", "prior", "prior_prior", "decoder")
WIDTHS = ("joint_attention_dim", "cross_attention_dim", "clip_text_in_channels", "c_cond")


@dataclass(frozen=True)
class Reader:
    """The side of a pipeline that reads prompt embeds.

    Attributes:
        name: the pipeline's class.
        base: the folder or hub id that it came from.
        width: of the embeds it reads; 0 where it is handed them and reads the pooled ones alone.
        pooled_width: of the pooled embeds, 0 where it reads none.
        dtype: of its weights.
        device: where it runs.
        keywords: the parts of a prompt that its call takes, by our names; and its own names.
    """

    name: str
    base: str
    width: int
    pooled_width: int
    dtype: torch.dtype
    device: torch.device
    keywords: dict[str, str]

    @classmethod
    def of(cls, pipeline: Any) -> Reader:
        """Asks a pipeline's call, and its UNet or transformer.

        Raises:
            ValueError: it takes no embeds of CLIP, nothing is there to read them, or its parts
                want different ones.
        """
        name = type(pipeline).__name__
        keywords = keywords_of(pipeline)
        parts = (getattr(pipeline, part, None) for part in DRAWING)
        drawing = next((part for part in parts if part is not None), None)
        if drawing is None:
            raise ValueError(f"this {name} has no UNet or transformer loaded: it cannot draw")
        width, pooled = _width(drawing.config), _pooled_width(pipeline, drawing.config, keywords)
        if not width and not pooled:
            raise ValueError(f"the {type(drawing).__name__} of this {name} reads no prompt embeds")
        if pooled and "pooled_prompt_embeds" not in keywords:
            raise ValueError(
                f"the {type(drawing).__name__} of this {name} reads pooled embeds, and the "
                "pipeline takes none"
            )
        for controlnet in _controlnets(pipeline):
            own = _width(controlnet.config)
            # SD3.5's ControlNets read no embeds of their own.
            if own not in (0, width):
                raise ValueError(
                    f"the ControlNet reads embeds {own} wide and the {type(drawing).__name__} "
                    f"{width}: they belong to different bases"
                )
        base = str(pipeline.config.get("_name_or_path", ""))
        device = pipeline._execution_device
        return cls(name, base, width, pooled, drawing.dtype, device, keywords)

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

    def check_negative(self) -> None:
        """Whether it takes a negative.

        Raises:
            ValueError: it does not.
        """
        if "negative_prompt_embeds" not in self.keywords:
            raise ValueError(f"{self.name} takes no negative: leave negative= out")

    def fits(self, shape: SpaceShape) -> bool:
        """Whether embeds of a space are as wide as what is read."""
        wide = shape.pipeline_width if self.width else 0
        return (wide, shape.pooled_width) == (self.width, self.pooled_width)


def _width(config: Any) -> int:
    if config.get("encoder_hid_dim_type") == "text_proj":
        return int(config.encoder_hid_dim)
    width = next((config[name] for name in WIDTHS if config.get(name)), 0)
    return int(width[0] if isinstance(width, (list, tuple)) else width)


def _pooled_width(pipeline: Any, config: Any, keywords: Mapping[str, str]) -> int:
    if "joint_attention_dim" in config:
        return int(config.get("pooled_projection_dim") or 0)
    if "clip_text_pooled_in_channels" in config:
        return int(config.clip_text_pooled_in_channels)
    if "pooled_prompt_embeds" in keywords and config.get("time_cond_proj_dim"):
        # The latent upscaler writes its noise level in 128 numbers and the pooled embeds behind.
        return int(config.time_cond_proj_dim) - 128
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
