"""From audio tokens to a prompt's positions: what several adapters share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean (B, H) of the tokens (B, S, H) that were heard (B, S)."""
    weight = mask.to(tokens.dtype)[..., None]
    # Filled, not multiplied: zero times infinity is no number.
    kept = tokens.masked_fill(~mask[..., None], 0.0)
    return kept.sum(1) / weight.sum(1).clamp(min=1)


def compact_tokens(tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Heard tokens moved to the front in their order, zeros behind them, with their mask.

    A convolution over them then finds at the end of a short recording what it finds at the end
    of a long one.
    """
    order = (~mask).int().argsort(dim=1, stable=True)
    moved = tokens.gather(1, order[..., None].expand_as(tokens))
    mask = mask.gather(1, order)
    return moved.masked_fill(~mask[..., None], 0.0), mask


def pool_to_length(tokens: torch.Tensor, mask: torch.Tensor, count: int) -> torch.Tensor:
    """Averages each row's heard tokens into `count` slots of equal length in time.

    Torch's adaptive average pooling, by each row's own length: a token stands in several slots
    where there are fewer tokens than slots.

    Args:
        tokens: (B, S, H), the heard ones first.
        mask: (B, S).
        count: of slots.

    Returns:
        (B, count, H).
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
    """Some tokens to all positions of a prompt, each position a mixture of its own.

    The mixture starts as the tokens stretched over the positions. What a position makes of it
    depends on the position: a learned embedding is added before a feed-forward network.

    Args:
        count: of tokens.
        length: L, the prompt's positions.
        width: of the tokens.
        embed_width: D, the prompt's width.
        pooled_width: P of the pooled embeds, read from the tokens' mean; 0 for none.
        dropout: in the feed-forward network.
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
        """(B, L, D), and (B, P) or None, from tokens (B, count, W)."""
        mixed = self.mixture @ tokens + self.embedding
        mixed = mixed + self.feed_forward(self.norm(mixed))
        pooled = None if self.proj_pooled is None else self.proj_pooled(tokens.mean(1))
        return self.proj_out(self.norm_out(mixed)), pooled
