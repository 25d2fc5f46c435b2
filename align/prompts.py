"""The prompt space of a pipeline: the embeds that its own text encoders give, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Spreads below this share of the space's own are taken as no spread at all: the position or
# dimension is constant, is stored, and is not learned.
CONSTANT = 1e-3
# Spreads are clipped to this range around the space's own before anything is divided by them:
# a nearly constant dimension must not weigh without bound, an outlier one must not vanish.
FLOOR, CEILING = 0.05, 20.0


@dataclass(frozen=True)
class Prompts:
    """What a pipeline takes for N prompts.

    Attributes:
        embeds: (N, L, D).
        pooled: (N, P), or None where the pipeline takes no pooled embeds.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None

    def arguments(self, null: Prompts) -> dict[str, torch.Tensor]:
        """These prompts and the unconditional ones by the pipeline's own argument names."""
        found = {"prompt_embeds": self.embeds, "negative_prompt_embeds": null.embeds}
        if self.pooled is not None and null.pooled is not None:
            found["pooled_prompt_embeds"] = self.pooled
            found["negative_pooled_prompt_embeds"] = null.pooled
        return found


@dataclass(frozen=True)
class Statistics:
    """Centre and spread of a set of embeds, each of one embed's own shape.

    Attributes:
        mean: the mean, also the value where `constant`.
        spread: the standard deviation, floored and clipped; one where `constant`.
        constant: bool, true where the embeds hardly vary.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    constant: torch.Tensor

    @classmethod
    def of(cls, embeds: torch.Tensor) -> Statistics:
        """The statistics of embeds (N, ...) over their first axis; N = 1 is all constant."""
        mean, spread = embeds.mean(0), embeds.std(0, correction=0)
        own = spread.square().mean().sqrt()
        constant = spread <= CONSTANT * own
        spread = spread.clamp(FLOOR * own, CEILING * own)
        return cls(mean, torch.where(constant, torch.ones_like(spread), spread), constant)

    def standardise(self, embeds: torch.Tensor) -> torch.Tensor:
        """(embeds - mean) / spread; zero where constant."""
        return ((embeds - self.mean) / self.spread).masked_fill(self.constant, 0.0)

    def restore(self, standardised: torch.Tensor) -> torch.Tensor:
        """What `standardise` was given, with the stored value where constant."""
        return self.mean + (standardised * self.spread).masked_fill(self.constant, 0.0)


class PromptSpace:
    """The text side of a pipeline, asked through its own `encode_prompt`.

    Any pipeline whose `encode_prompt` answers (embeds, negative embeds), as Stable Diffusion
    1 and 2 do, or (embeds, negative, pooled, negative pooled), as SDXL does.

    Args:
        pipeline: a diffusers pipeline; its UNet and VAE are not used and may be None.
        base: the hub id or folder that it came from.
    """

    def __init__(self, pipeline: Any, base: str) -> None:
        self._pipeline = pipeline
        self.base = base
        self.unconditional = self._encode([""])[1]

    @classmethod
    def from_pretrained(cls, base: str, **options: Any) -> PromptSpace:
        """Loads only a base's text side.

        Args:
            base: a short name, a folder or a hub id of a pipeline.
            options: for `DiffusionPipeline.from_pretrained`.

        Raises:
            OSError: there is no such base.
        """
        from diffusers import DiffusionPipeline

        from align.names import BASES, lookup

        pipeline = DiffusionPipeline.from_pretrained(
            lookup(BASES, base), unet=None, vae=None, **{"dtype": torch.float32} | options
        )
        return cls(pipeline, base)

    def _encode(self, captions: Sequence[str]) -> tuple[Prompts, Prompts]:
        with torch.no_grad():
            answer = self._pipeline.encode_prompt(
                list(captions),
                device=self._pipeline.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=True,
            )
        if len(answer) == 2:
            return Prompts(answer[0]), Prompts(answer[1])
        return Prompts(answer[0], answer[2]), Prompts(answer[1], answer[3])

    def encode(self, captions: Sequence[str], batch_size: int = 64) -> Prompts:
        """Prompt embeds of captions, on the CPU in float32.

        Raises:
            ValueError: no captions are given.
        """
        if not captions:
            raise ValueError("no captions to encode")
        parts = [
            self._encode(captions[i : i + batch_size])[0]
            for i in range(0, len(captions), batch_size)
        ]
        embeds = torch.cat([part.embeds.float().cpu() for part in parts])
        pooled = [part.pooled.float().cpu() for part in parts if part.pooled is not None]
        return Prompts(embeds, torch.cat(pooled) if pooled else None)
