"""Sonic adapter: SonicDiffusion's audio projector."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from align.models.adapters.layers import masked_mean


class SelfAttention(nn.Module):
    """Residual self-attention with a given width per head."""

    def __init__(self, width: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.proj_in = nn.Linear(width, 3 * heads * head_width)
        self.proj_out = nn.Linear(heads * head_width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps (B, L, D) to (B, L, D)."""
        inner = self.proj_in(self.norm(tokens)).unflatten(2, (3, self.heads, -1))
        query, key, value = inner.permute(2, 0, 3, 1, 4)
        dropout_p = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout_p)
        return tokens + self.proj_out(attended.transpose(1, 2).flatten(2))


class Sonic(nn.Module):
    """Convolutions over the mean audio token as a 1D signal, with one channel per position.

    SonicDiffusion's projector (Biner et al. 2024, arXiv 2405.00878): convolutions of kernel size 17
    from one channel to 77, one per position, a linear map to the prompt's width, and four blocks of
    self-attention. The blocks are sequential here; in the released code all blocks have the same
    input, so that only the last one has an effect.

    Args:
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds; 0 if the pipeline has none.
        depth: Number of attention blocks.
        heads: Number of attention heads.
        head_width: Dimension per attention head.
        kernel: Kernel size of the convolutions; odd.
        dropout: Dropout in attention.

    Raises:
        ValueError: The kernel size is even.
    """

    def __init__(
        self,
        token_width: int,
        length: int,
        embed_width: int,
        pooled_width: int = 0,
        depth: int = 4,
        heads: int = 8,
        head_width: int = 40,
        kernel: int = 17,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the sonic adapter's kernel must be odd, not {kernel}")
        self.norm = nn.LayerNorm(token_width)
        self.convs = nn.Sequential(
            nn.Conv1d(1, length, kernel, padding=kernel // 2),
            nn.GELU(),
            nn.Conv1d(length, length, kernel, padding=kernel // 2),
            nn.GELU(),
        )
        self.proj_embeds = nn.Linear(token_width, embed_width)
        self.blocks = nn.Sequential(
            *(SelfAttention(embed_width, heads, head_width, dropout) for _ in range(depth))
        )
        self.proj_out = nn.Linear(embed_width, embed_width)
        self.proj_pooled = nn.Linear(embed_width, pooled_width) if pooled_width else None

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standardized embeds (B, L, D), and pooled (B, P) or None; see `align.models.adapters`."""
        signal = self.norm(masked_mean(tokens, mask))[:, None]
        attended = self.blocks(self.proj_embeds(self.convs(signal)))
        pooled = None if self.proj_pooled is None else self.proj_pooled(attended.mean(1))
        return self.proj_out(attended), pooled
