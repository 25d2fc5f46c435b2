"""Prompt embeds, their shape in a prompt space, and their statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class SpaceShape:
    """Shape of the prompt embeds of a pipeline.

    Attributes:
        base_model: Short name, folder or Hub id of the pipeline.
        length: Number of positions L.
        width: Dimension D of each position.
        pooled_width: Dimension P of the pooled embeds; 0 without pooled embeds.
        extra_positions: Number of zero positions that the pipeline appends to the L learned ones.
        extra_dimensions: Number of zero dimensions that it appends to the D learned ones.
    """

    base_model: str
    length: int
    width: int
    pooled_width: int = 0
    extra_positions: int = 0
    extra_dimensions: int = 0

    @property
    def padding(self) -> tuple[int, int]:
        """Appended zero positions and dimensions, as in `PromptEmbeds.padding`."""
        return self.extra_positions, self.extra_dimensions

    @property
    def pipeline_width(self) -> int:
        """Width of the embeds that the pipeline takes, including appended dimensions."""
        return self.width + self.extra_dimensions


# A standard deviation below this fraction of the overall one counts as zero: the value is constant
# and is stored instead of learned.
CONSTANT_THRESHOLD = 1e-3
# Standard deviations are clipped to this range, relative to the overall one, before division: the
# weight of a nearly constant dimension stays bounded, and that of an outlier above zero.
STD_FLOOR, STD_CEILING = 0.05, 20.0
BLOCK_ROWS = 64  # rows processed at once, to bound memory


@dataclass(frozen=True)
class PromptEmbeds:
    """Embeds of N prompts.

    Attributes:
        embeds: Prompt embeds of shape (N, L, D), as written by the pipeline's CLIP text encoders.
        pooled: Pooled embeds of shape (N, P), or None if the pipeline takes none.
        padding: Number of zero positions and of zero dimensions that the pipeline appends, as
            Stable Diffusion 3 does when T5 is not loaded.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    padding: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.embeds)

    def select(self, chosen: torch.Tensor | slice) -> PromptEmbeds:
        """Select prompts by index or slice; indices may repeat."""
        pooled = None if self.pooled is None else self.pooled[chosen]
        return PromptEmbeds(self.embeds[chosen], pooled, self.padding)

    def to(self, *where: Any) -> PromptEmbeds:
        """Convert to another dtype or device, with the arguments of `torch.Tensor.to`."""
        pooled = None if self.pooled is None else self.pooled.to(*where)
        return PromptEmbeds(self.embeds.to(*where), pooled, self.padding)

    def pipeline_kwargs(self, unconditional: PromptEmbeds) -> dict[str, torch.Tensor]:
        """Return these and the unconditional prompts as keyword arguments of a pipeline.

        Args:
            unconditional: Negative prompts of the same shape.

        Raises:
            ValueError: If the two shapes differ, which pipelines do not accept.
        """
        if self.embeds.shape != unconditional.embeds.shape:
            shapes = f"{tuple(self.embeds.shape)} and {tuple(unconditional.embeds.shape)}"
            raise ValueError(f"prompt and negative embeds must have the same shape, not {shapes}")
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
    """Mean and standard deviation of a set of embeds, each with the shape of one embed.

    Attributes:
        mean: Mean; also the stored value where `constant`.
        std: Standard deviation, clipped to a range; 1 where `constant`.
        constant: Boolean mask of the entries that hardly vary.
    """

    mean: torch.Tensor
    std: torch.Tensor
    constant: torch.Tensor

    @classmethod
    def of(cls, embeds: torch.Tensor) -> EmbedStatistics:
        """Compute statistics of embeds (N, ...) over the first axis; N = 1 is all constant."""
        return cls.of_blocks(lambda: embeds.split(BLOCK_ROWS))

    @classmethod
    def of_blocks(cls, blocks: Callable[[], Iterable[torch.Tensor]]) -> EmbedStatistics:
        """Compute statistics of embeds given in blocks.

        Blocks are read in float32 and summed in float64, so that the result does not depend on
        the block size within float32 precision.

        Args:
            blocks: Function that returns an iterable of blocks (n, ...); called twice.
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
        """Return (embeds - mean) / std; 0 where constant."""
        return ((embeds - self.mean) / self.std).masked_fill(self.constant, 0.0)

    def restore(self, standardized: torch.Tensor) -> torch.Tensor:
        """Invert `standardize`; constant entries get their stored value."""
        return self.mean + (standardized * self.std).masked_fill(self.constant, 0.0)


def stack_prompts(parts: Sequence[PromptEmbeds]) -> PromptEmbeds:
    """Concatenate several sets of prompts of one space along the batch axis."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    embeds = torch.cat([part.embeds for part in parts])
    return PromptEmbeds(embeds, torch.cat(pooled) if pooled else None, parts[0].padding)
