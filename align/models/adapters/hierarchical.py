"""Hierarchical adapter: foreground, background and ambience tokens."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.resampler import ResamplerLayer

LEVELS = {"foreground": 5, "background": 3, "ambience": 2}  # number of tokens
INITIAL_LEVEL_WEIGHTS = {"foreground": 0.5, "background": 0.3, "ambience": 0.2}


class Hierarchical(nn.Module):
    """Resamples audio into weighted foreground, background and ambience tokens, then all positions.

    CLAP2Diffusion's hierarchy: 5 + 3 + 2 tokens, weights initialized to 0.5, 0.3 and 0.2, and four
    transformer layers that produce the prompt's positions. There the levels were linear maps of one
    vector; here each level has its own queries that attend to all audio tokens. A level's weight is
    its share of the positions' attention when all tokens match equally well; multiplying the tokens
    by it instead would be undone by the next LayerNorm.

    Args:
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds; 0 if the pipeline has none.
        width: Hidden size of the adapter and width of the level tokens.
        depth: Number of transformer layers from level tokens to positions.
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
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        extra = 1 if pooled_width else 0
        self.proj_in = nn.Linear(token_width, width)
        self.queries = nn.ParameterDict(
            {name: torch.randn(count, width) * 0.02 for name, count in LEVELS.items()}
        )
        self.level_resamplers = nn.ModuleDict(
            {name: ResamplerLayer(width, heads, dropout) for name in LEVELS}
        )
        self.level_weights = nn.Parameter(torch.tensor(list(INITIAL_LEVEL_WEIGHTS.values())).log())
        self.norm_levels = nn.LayerNorm(width)
        self.position_queries = nn.Parameter(torch.randn(length + extra, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, embed_width)
        self.proj_pooled = nn.Linear(width, pooled_width) if pooled_width else None

    def levels(self, tokens: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns each level's tokens (B, 5 | 3 | 2, width) by name."""
        hidden, ignored = self.proj_in(tokens), ~mask
        return {
            name: self.level_resamplers[name](query.expand(len(tokens), -1, -1), hidden, ignored)
            for name, query in self.queries.items()
        }

    def normalized_level_weights(self) -> dict[str, torch.Tensor]:
        """Returns each level's weight by name; the weights sum to 1."""
        return dict(zip(LEVELS, self.level_weights.softmax(0), strict=True))

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standardized embeds (B, L, D), and pooled (B, P) or None; see `align.models.adapters`."""
        levels = self.levels(tokens, mask)
        level_tokens = self.norm_levels(torch.cat([levels[name] for name in LEVELS], 1))
        # Divided by the number of tokens, so that larger levels do not have larger weights.
        log_weights = [
            (w / LEVELS[name]).log().expand(LEVELS[name])
            for name, w in self.normalized_level_weights().items()
        ]
        attention_bias = torch.cat(log_weights).expand(len(self.position_queries), -1)
        positions = self.position_queries.expand(len(tokens), -1, -1)
        for layer in self.layers:
            positions = layer(positions, level_tokens, memory_mask=attention_bias)
        positions = self.norm(positions)
        if self.proj_pooled is None:
            return self.proj_out(positions), None
        return self.proj_out(positions[:, :-1]), self.proj_pooled(positions[:, -1])
