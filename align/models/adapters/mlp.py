"""MLP adapter: a multilayer perceptron that produces a few tokens."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.layers import PositionMixer, masked_mean


class Mlp(nn.Module):
    """Maps the mean audio token to a few prompt-wide tokens with an MLP, then to positions.

    CLAP2Diffusion's audio adapter, from 512 dimensions to 8 tokens of width 768, which it
    concatenated to the text tokens. A prompt has more positions: each is a learned mixture of the
    tokens.

    Args:
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds; 0 if the pipeline has none.
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        tokens: Number of tokens per clip.
        dropout: Dropout after each hidden layer.
    """

    def __init__(
        self,
        token_width: int,
        length: int,
        embed_width: int,
        pooled_width: int = 0,
        width: int = 512,
        depth: int = 1,
        tokens: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            in_width = width if i else token_width
            layers += [nn.Linear(in_width, width), nn.GELU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.to_tokens = nn.Linear(width, tokens * embed_width)
        self.norm = nn.LayerNorm(embed_width)
        self._shape = (tokens, embed_width)
        self.position_mixer = PositionMixer(
            tokens, length, embed_width, embed_width, pooled_width, dropout
        )

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standardized embeds (B, L, D), and pooled (B, P) or None; see `align.models.adapters`."""
        prompt_tokens = self.to_tokens(self.hidden(masked_mean(tokens, mask))).unflatten(
            1, self._shape
        )
        embeds, pooled = self.position_mixer(self.norm(prompt_tokens))
        return embeds, pooled
