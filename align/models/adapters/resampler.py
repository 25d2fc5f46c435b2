"""Resampler adapter: learned queries that attend to the audio tokens."""

from __future__ import annotations

import torch
from torch import nn


class ResamplerLayer(nn.Module):
    """Cross-attention from queries to audio tokens and queries, and a feed-forward network."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(width)
        self.norm_tokens = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )

    def forward(
        self, queries: torch.Tensor, tokens: torch.Tensor, ignored: torch.Tensor
    ) -> torch.Tensor:
        """Updates queries (B, L, W) from tokens (B, S, W) where `ignored` (B, S) is false."""
        q = self.norm_queries(queries)
        # As in Flamingo, keys and values are the tokens and the queries themselves.
        keys = torch.cat([self.norm_tokens(tokens), q], 1)
        own = ignored.new_zeros(q.shape[:2])
        attended, _ = self.attention(
            q, keys, keys, key_padding_mask=torch.cat([ignored, own], 1), need_weights=False
        )
        queries = queries + attended
        return queries + self.feed_forward(self.norm(queries))


class Resampler(nn.Module):
    """Learned queries, one per prompt position, that attend to the audio tokens.

    The Perceiver Resampler of Flamingo (Alayrac et al. 2022, arXiv 2204.14198, figure 5).

    Args:
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds; 0 if the pipeline has none.
        width: Hidden size of the adapter.
        depth: Number of layers.
        heads: Number of attention heads.
        dropout: Dropout in attention and feed-forward networks.
    """

    def __init__(
        self,
        token_width: int,
        length: int,
        embed_width: int,
        pooled_width: int = 0,
        width: int = 256,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        extra = 1 if pooled_width else 0
        self.queries = nn.Parameter(torch.randn(length + extra, width) * 0.02)
        self.proj_in = nn.Linear(token_width, width)
        self.layers = nn.ModuleList([ResamplerLayer(width, heads, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, embed_width)
        self.proj_pooled = nn.Linear(width, pooled_width) if pooled_width else None

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Computes standardized prompt embeds.

        Args:
            tokens: Audio tokens (B, S, H).
            mask: (B, S) bool, false for padding.

        Returns:
            Embeds (B, L, D), and pooled embeds (B, P) or None.
        """
        hidden, ignored = self.proj_in(tokens), ~mask
        queries = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            queries = layer(queries, hidden, ignored)
        queries = self.norm(queries)
        if self.proj_pooled is None:
            return self.proj_out(queries), None
        return self.proj_out(queries[:, :-1]), self.proj_pooled(queries[:, -1])
