"""Linear adapter: one linear map of the mean audio token."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.layers import masked_mean


class LinearRepeat(nn.Module):
    """Projects the mean audio token with one Linear, repeated over all positions.

    As art-from-audio does with CLAP's embedding. There, the same vector at all positions made
    cross-attention constant. Here, every position has its own gain and offset per dimension, and
    the map remains linear. Use it as the simplest baseline.

    Args:
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds; 0 if the pipeline has none.
    """

    def __init__(
        self, token_width: int, length: int, embed_width: int, pooled_width: int = 0
    ) -> None:
        super().__init__()
        self.proj_out = nn.Linear(token_width, embed_width, bias=False)
        self.gain = nn.Parameter(torch.ones(length, embed_width))
        self.offset = nn.Parameter(torch.zeros(length, embed_width))
        self.proj_pooled = nn.Linear(token_width, pooled_width) if pooled_width else None

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standardized embeds (B, L, D), and pooled (B, P) or None; see `align.models.adapters`."""
        mean = masked_mean(tokens, mask)
        embeds = self.proj_out(mean)[:, None] * self.gain + self.offset
        return embeds, None if self.proj_pooled is None else self.proj_pooled(mean)
