"""Retrieval memory: interpolate predictions towards the embeds of known captions.

A regressor that is unsure between two captions predicts an average of them, which corresponds to no
caption and generates neither image. An encoder with few captions therefore stores their embeds and
interpolates its predictions with a mixture of those most similar to it: the projection onto a
support memory of DeCap (Li et al. 2023, arXiv 2303.03032, section 3.3), there from images to text.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class RetrievalMemory(nn.Module):
    """Stored embeds and the interpolation towards them.

    Args:
        size: M, number of stored embeds; zeros until they are loaded or copied.
        shape: Shape (L, D) of an embed.
        pooled_width: P, width of the pooled embeds; 0 for none.
        weight: Interpolation weight of the retrieved embeds, 0 to 1.
        temperature: Softmax temperature of the cosines; lower values favor the nearest embed.
    """

    def __init__(
        self,
        size: int,
        shape: tuple[int, int],
        pooled_width: int = 0,
        *,
        weight: float,
        temperature: float,
    ) -> None:
        super().__init__()
        self.weight, self.temperature = weight, temperature
        self.register_buffer("embeds", torch.zeros(size, *shape))
        pooled = torch.zeros(size, pooled_width) if pooled_width else None
        self.register_buffer("pooled", pooled)

    @classmethod
    def from_embeds(
        cls, embeds: torch.Tensor, pooled: torch.Tensor | None, weight: float, temperature: float
    ) -> RetrievalMemory:
        """Builds a memory of standardized embeds (M, L, D), and pooled embeds (M, P) or None."""
        rows, length, width = embeds.shape
        pooled_width = 0 if pooled is None else pooled.shape[-1]
        found = cls(rows, (length, width), pooled_width, weight=weight, temperature=temperature)
        found.get_buffer("embeds").copy_(embeds)
        if pooled is not None:
            found.get_buffer("pooled").copy_(pooled)
        return found

    @property
    def config(self) -> dict[str, int | float]:
        """The constructor's arguments to store in a configuration."""
        size = len(self.get_buffer("embeds"))
        return {"size": size, "weight": self.weight, "temperature": self.temperature}

    def forward(
        self, embeds: torch.Tensor, pooled: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Interpolates predictions (B, L, D), and pooled (B, P) or None, with retrieved embeds."""
        memory = self.get_buffer("embeds").float()
        # Autocast would compute the products in half precision.
        with torch.autocast(embeds.device.type, enabled=False):
            own = F.normalize(embeds.float().flatten(1), dim=-1)
            cosines = own @ F.normalize(memory.flatten(1), dim=-1).T
            weights = (cosines / self.temperature).softmax(-1)
            embeds = self._interpolate(embeds, weights, memory)
            if pooled is not None:
                pooled = self._interpolate(pooled, weights, self.get_buffer("pooled").float())
        return embeds, pooled

    def _interpolate(
        self, own: torch.Tensor, weights: torch.Tensor, memory: torch.Tensor
    ) -> torch.Tensor:
        retrieved = torch.tensordot(weights, memory, 1).to(own.dtype)
        return torch.lerp(own, retrieved, self.weight)
