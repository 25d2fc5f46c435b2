"""Learned queries that look at the audio tokens."""

from __future__ import annotations

import torch
from torch import nn


class ResamplerLayer(nn.Module):
    """Queries look at the audio tokens and at each other, then pass a feed-forward network."""

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
        """(B, L, W) queries after one look at (B, S, W) tokens, where not `ignored` (B, S)."""
        q = self.norm_queries(queries)
        # As in Flamingo: keys are the tokens and the queries themselves.
        keys = torch.cat([self.norm_tokens(tokens), q], 1)
        own = ignored.new_zeros(q.shape[:2])
        attended, _ = self.attention(
            q, keys, keys, key_padding_mask=torch.cat([ignored, own], 1), need_weights=False
        )
        queries = queries + attended
        return queries + self.feed_forward(self.norm(queries))


class Resampler(nn.Module):
    """Learned queries, one a prompt position, that attend to the audio tokens.

    The Perceiver Resampler of Flamingo (Alayrac et al. 2022, arXiv 2204.14198, figure 5).

    Args:
        token_width: H, the audio tokens' width.
        length: L, the prompt's positions.
        embed_width: D, the prompt's width.
        pooled_width: P of the pooled embeds, 0 where the pipeline takes none.
        width: the adapter's own.
        depth: layers.
        heads: attention heads.
        dropout: in attention and feed-forward.
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
        """Standardised prompt embeds.

        Args:
            tokens: (B, S, H) audio tokens.
            mask: (B, S) bool, true where a token was heard.

        Returns:
            (B, L, D), and (B, P) or None.
        """
        hidden, ignored = self.proj_in(tokens), ~mask
        queries = self.queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            queries = layer(queries, hidden, ignored)
        queries = self.norm(queries)
        if self.proj_pooled is None:
            return self.proj_out(queries), None
        return self.proj_out(queries[:, :-1]), self.proj_pooled(queries[:, -1])
