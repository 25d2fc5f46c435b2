"""Multi-scale adapter: parallel convolutions with several kernel sizes."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.layers import PositionMixer, compact_tokens, pool_to_length


class ScalesLayer(nn.Module):
    """Depthwise convolutions over time with kernels 3, 9, 27, …, mixed and added to the input."""

    def __init__(self, width: int, scales: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        kernels = [3 ** (i + 1) for i in range(scales)]
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width) for kernel in kernels
        )
        self.mix = nn.Sequential(
            nn.Linear(scales * width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Transforms compacted tokens (B, S, W), keeping their shape."""
        kept = self.norm(tokens).masked_fill(~mask[..., None], 0.0).transpose(1, 2)
        scales = torch.cat([conv(kept) for conv in self.convs], 1).transpose(1, 2)
        return tokens + self.mix(scales)


class Multiscale(nn.Module):
    """Multi-scale convolutions over time, for sounds of different durations.

    As planned by CLAP2Diffusion; the parallel kernels follow Inception (Szegedy et al. 2015, arXiv
    1409.4842), applied over time.

    Args:
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds; 0 if the pipeline has none.
        width: Hidden size of the adapter.
        depth: Number of layers.
        scales: Number of parallel kernels, of 3, 9, 27, … tokens.
        dropout: Dropout in every layer.
    """

    def __init__(
        self,
        token_width: int,
        length: int,
        embed_width: int,
        pooled_width: int = 0,
        width: int = 256,
        depth: int = 2,
        scales: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self._count = length
        self.proj_in = nn.Linear(token_width, width)
        self.layers = nn.ModuleList(ScalesLayer(width, scales, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.position_mixer = PositionMixer(
            length, length, width, embed_width, pooled_width, dropout
        )

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standardized embeds (B, L, D), and pooled (B, P) or None; see `align.models.adapters`."""
        tokens, mask = compact_tokens(tokens, mask)
        tokens = self.proj_in(tokens)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        embeds, pooled = self.position_mixer(pool_to_length(self.norm(tokens), mask, self._count))
        return embeds, pooled
