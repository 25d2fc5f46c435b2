"""Heads: each one prompt space's adapter and all that a pipeline of that space needs to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class SpaceShape:
    """A prompt space's sizes and where it came from.

    Attributes:
        base: the pipeline's short name, folder or hub id.
        length: L, positions.
        width: D, of each position.
        pooled_width: P, 0 without pooled embeds.
        extra_positions: zero positions that the pipeline appends to the L that are learned.
        extra_dimensions: zero dimensions that it appends to the D.
    """

    base_model: str
    length: int
    width: int
    pooled_width: int = 0
    extra_positions: int = 0
    extra_dimensions: int = 0

    @property
    def padding(self) -> tuple[int, int]:
        """As `PromptEmbeds` has it."""
        return self.extra_positions, self.extra_dimensions

    @property
    def pipeline_width(self) -> int:
        """The width of the embeds that the pipeline reads."""
        return self.width + self.extra_dimensions


# Spreads below this share of the space's own are taken as no spread at all: the position or
# dimension is constant, is stored, and is not learned.
CONSTANT_THRESHOLD = 1e-3
# Spreads are clipped to this range around the space's own before anything is divided by them:
# a nearly constant dimension must not weigh without bound, an outlier one must not vanish.
STD_FLOOR, STD_CEILING = 0.05, 20.0
BLOCK_ROWS = 64  # embeds taken at a time where all of them may be too many


@dataclass(frozen=True)
class PromptEmbeds:
    """What a pipeline takes for N prompts.

    Attributes:
        embeds: (N, L, D), what the pipeline's CLIP text encoders fill.
        pooled: (N, P), or None where the pipeline takes no pooled embeds.
        padding: zero positions and zero dimensions that the pipeline appends to the embeds, as
            Stable Diffusion 3 does for a T5 that is not loaded.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    padding: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.embeds)

    def select(self, chosen: torch.Tensor | slice) -> PromptEmbeds:
        """Some of these prompts, or the same one several times."""
        pooled = None if self.pooled is None else self.pooled[chosen]
        return PromptEmbeds(self.embeds[chosen], pooled, self.padding)

    def to(self, *where: Any) -> PromptEmbeds:
        """These prompts in another dtype or on another device, as `torch.Tensor.to` takes them."""
        pooled = None if self.pooled is None else self.pooled.to(*where)
        return PromptEmbeds(self.embeds.to(*where), pooled, self.padding)

    def pipeline_kwargs(self, unconditional: PromptEmbeds) -> dict[str, torch.Tensor]:
        """These prompts and the unconditional ones by the pipeline's own argument names.

        Raises:
            ValueError: the two are not of one shape, as pipelines want them.
        """
        if self.embeds.shape != unconditional.embeds.shape:
            shapes = f"{tuple(self.embeds.shape)} and {tuple(unconditional.embeds.shape)}"
            raise ValueError(f"prompt and negative embeds must be of one shape, not {shapes}")
        found = {"prompt_embeds": self.embeds, "negative_prompt_embeds": unconditional.embeds}
        if any(self.padding):
            positions, dimensions = self.padding
            found = {k: F.pad(v, (0, dimensions, 0, positions)) for k, v in found.items()}
        if self.pooled is not None and unconditional.pooled is not None:
            found["pooled_prompt_embeds"] = self.pooled
            found["negative_pooled_prompt_embeds"] = unconditional.pooled
        return found


@dataclass(frozen=True)
class EmbedStatistics:
    """Centre and spread of a set of embeds, each of one embed's own shape.

    Attributes:
        mean: the mean, also the value where `constant`.
        spread: the standard deviation, floored and clipped; one where `constant`.
        constant: bool, true where the embeds hardly vary.
    """

    mean: torch.Tensor
    std: torch.Tensor
    constant: torch.Tensor

    @classmethod
    def of(cls, embeds: torch.Tensor) -> EmbedStatistics:
        """The statistics of embeds (N, ...) over their first axis; N = 1 is all constant."""
        return cls.of_blocks(lambda: embeds.split(BLOCK_ROWS))

    @classmethod
    def of_blocks(cls, blocks: Callable[[], Iterable[torch.Tensor]]) -> EmbedStatistics:
        """The statistics of embeds that come in blocks (n, ...), which are asked for twice.

        Blocks are taken in float32, their sums in float64: how embeds are divided into blocks
        changes nothing that float32 could show.
        """
        count, total = 0, torch.zeros(())
        for block in blocks():
            count, total = count + len(block), total + block.float().sum(0, dtype=torch.float64)
        center = total / count
        square = sum((b.double() - center).square().sum(0) for b in blocks()) / count
        mean, std = center.float(), torch.as_tensor(square).sqrt().float()
        own = std.square().mean().sqrt()
        constant = std <= CONSTANT_THRESHOLD * own
        std = std.clamp(STD_FLOOR * own, STD_CEILING * own)
        return cls(mean, torch.where(constant, torch.ones_like(std), std), constant)

    def standardize(self, embeds: torch.Tensor) -> torch.Tensor:
        """(embeds - mean) / spread; zero where constant."""
        return ((embeds - self.mean) / self.std).masked_fill(self.constant, 0.0)

    def restore(self, standardized: torch.Tensor) -> torch.Tensor:
        """What `standardize` was given, with the stored value where constant."""
        return self.mean + (standardized * self.std).masked_fill(self.constant, 0.0)


def stack_prompts(parts: Sequence[PromptEmbeds]) -> PromptEmbeds:
    """Several sets of prompts of one space as one."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    embeds = torch.cat([part.embeds for part in parts])
    return PromptEmbeds(embeds, torch.cat(pooled) if pooled else None, parts[0].padding)
