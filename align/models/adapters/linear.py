"""One linear map of the whole recording."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.layers import masked_mean


class LinearRepeat(nn.Module):
    """The mean audio token through one Linear, repeated over the positions.

    As art-from-audio does with CLAP's embedding; there the one vector stood bare at all positions,
    so that cross-attention had nothing to choose from and was constant. Here every position reads
    the vector through a gain and an offset of its own, dimension by dimension, and the map stays
    linear. Choose it as the plainest thing to compare with.

    Args:
        token_width: H, the audio tokens' width.
        length: L, the prompt's positions.
        embed_width: D, the prompt's width.
        pooled_width: P of the pooled embeds, 0 where the pipeline takes none.
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
        """Standardised embeds (B, L, D), and pooled (B, P) or None; see `align.models.adapters`."""
        mean = masked_mean(tokens, mask)
        embeds = self.proj_out(mean)[:, None] * self.gain + self.offset
        return embeds, None if self.proj_pooled is None else self.proj_pooled(mean)
