"""Recall: answers drawn towards what captions are known to say.

A regressor that is unsure between two things answers with something between them, which no caption
says and a pipeline draws as neither. So an encoder whose captions are few keeps their embeds, and
answers in part with a mixture of those that its own answer is most like: the projection onto a
support memory of DeCap (Li et al. 2023, arXiv 2303.03032, section 3.3), there from images to text.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class RetrievalMemory(nn.Module):
    """Embeds that an encoder remembers, and how far its answers follow them.

    Args:
        rows: M, the embeds that are remembered; zeros until they are loaded or told.
        shape: (L, D) of an embed.
        pooled_width: P, 0 without pooled embeds.
        share: of what is remembered in an answer, 0 to 1.
        temperature: divides cosines; the colder, the more the nearest alone is followed.
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
        """A memory of standardised embeds (M, L, D), and pooled ones (M, P) or None."""
        rows, length, width = embeds.shape
        pooled_width = 0 if pooled is None else pooled.shape[-1]
        found = cls(rows, (length, width), pooled_width, weight=weight, temperature=temperature)
        found.get_buffer("embeds").copy_(embeds)
        if pooled is not None:
            found.get_buffer("pooled").copy_(pooled)
        return found

    @property
    def config(self) -> dict[str, int | float]:
        """What a configuration keeps of it."""
        size = len(self.get_buffer("embeds"))
        return {"size": size, "weight": self.weight, "temperature": self.temperature}

    def forward(
        self, embeds: torch.Tensor, pooled: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Answers (B, L, D), and pooled (B, P) or None, each drawn towards what it is like."""
        memory = self.get_buffer("embeds").float()
        # Autocast would round the products to half precision, whatever goes in.
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
