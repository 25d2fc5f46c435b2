"""Layers shared by several adapters."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean (B, H) of the tokens (B, S, H) where the mask (B, S) is true."""
    weight = mask.to(tokens.dtype)[..., None]
    # Filled, not multiplied: zero times infinity is NaN.
    kept = tokens.masked_fill(~mask[..., None], 0.0)
    return kept.sum(1) / weight.sum(1).clamp(min=1)


def compact_tokens(tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves unmasked tokens to the front, in order, with zeros after them; returns the new mask.

    At the end of a short clip, a convolution then has the same input as at the end of a long one.
    """
    order = (~mask).int().argsort(dim=1, stable=True)
    moved = tokens.gather(1, order[..., None].expand_as(tokens))
    mask = mask.gather(1, order)
    return moved.masked_fill(~mask[..., None], 0.0), mask


def pool_to_length(tokens: torch.Tensor, mask: torch.Tensor, count: int) -> torch.Tensor:
    """Averages each row's unmasked tokens into `count` slots of equal duration.

    Equals PyTorch's adaptive average pooling over each row's own length: with fewer tokens than
    slots, a token contributes to several slots.

    Args:
        tokens: Compacted tokens (B, S, H), see `compact_tokens`.
        mask: Mask (B, S).
        count: Number of slots.

    Returns:
        Pooled tokens (B, count, H).
    """
    length = mask.sum(1).clamp(min=1)[:, None]
    slot = torch.arange(count, device=mask.device)
    first = slot * length // count
    last = -(-(slot + 1) * length // count)
    place = torch.arange(tokens.shape[1], device=mask.device)
    inside = (place >= first[..., None]) & (place < last[..., None])
    weight = inside.to(tokens.dtype) / (last - first)[..., None].to(tokens.dtype)
    return weight @ tokens


class PositionMixer(nn.Module):
    """Maps a few tokens to all prompt positions, each a learned mixture of the tokens.

    The mixture is initialized to linear interpolation of the tokens over the positions. A learned
    position embedding is added before a feed-forward network.

    Args:
        count: Number of tokens.
        length: L, number of prompt positions.
        width: W, width of the tokens.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds, computed from the mean token; 0 for none.
        dropout: Dropout in the feed-forward network.
    """

    def __init__(
        self,
        count: int,
        length: int,
        width: int,
        embed_width: int,
        pooled_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        stretched = F.interpolate(torch.eye(count)[None], length, mode="linear")[0].T
        self.mixture = nn.Parameter(stretched.contiguous())
        self.embedding = nn.Parameter(torch.randn(length, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.norm_out = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, embed_width)
        self.proj_pooled = nn.Linear(width, pooled_width) if pooled_width else None

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Maps tokens (B, count, W) to embeds (B, L, D), and pooled (B, P) or None."""
        mixed = self.mixture @ tokens + self.embedding
        mixed = mixed + self.feed_forward(self.norm(mixed))
        pooled = None if self.proj_pooled is None else self.proj_pooled(tokens.mean(1))
        return self.proj_out(self.norm_out(mixed)), pooled
