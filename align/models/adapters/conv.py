"""Convolution adapter: strided convolutions over time."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.layers import PositionMixer, compact_tokens, pool_to_length


class StridedLayer(nn.Module):
    """Two strided, gated convolutions, self-attention on one of them, and a feed-forward network.

    An adapter layer of Wav2Vec2-BERT (Chung et al. 2021, Barrault et al. 2023), but masked before
    the convolutions as well: there, padding leaks into the last token of a short clip.
    """

    def __init__(self, width: int, heads: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.norm_residual = nn.LayerNorm(width)
        self.conv_residual = nn.Conv1d(width, 2 * width, kernel, stride, kernel // 2)
        self.norm_attention = nn.LayerNorm(width)
        self.conv_attention = nn.Conv1d(width, 2 * width, kernel, stride, kernel // 2)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def _downsample(
        self, tokens: torch.Tensor, mask: torch.Tensor, norm: nn.Module, conv: nn.Module
    ) -> torch.Tensor:
        kept = norm(tokens).masked_fill(~mask[..., None], 0.0)
        return nn.functional.glu(conv(kept.transpose(1, 2)), 1).transpose(1, 2)

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Downsamples compacted tokens (B, S, W) and their mask (B, S) by the stride."""
        residual = self._downsample(tokens, mask, self.norm_residual, self.conv_residual)
        queries = self._downsample(tokens, mask, self.norm_attention, self.conv_attention)
        lengths = (mask.sum(1) + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1
        mask = torch.arange(queries.shape[1], device=mask.device) < lengths[:, None]
        attended, _ = self.attention(
            queries, queries, queries, key_padding_mask=~mask, need_weights=False
        )
        tokens = residual + attended
        return tokens + self.feed_forward(self.norm(tokens)), mask


class Conv(nn.Module):
    """Strided adapter layers as in Wav2Vec2-BERT, pooled over time and mixed into positions.

    audio2img used the output of such layers, 47 tokens for 3.75 s, as the prompt. Here clips of any
    length are averaged into a fixed number of tokens in temporal order: by default one for every
    position.

    Args:
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds.
        pooled_width: P, width of the pooled embeds; 0 if the pipeline has none.
        width: Hidden size of the adapter.
        depth: Number of strided layers.
        heads: Number of attention heads.
        kernel: Kernel size of the convolutions; odd.
        stride: Stride of each layer.
        tokens: Number of tokens per clip. Defaults to one per position.
        dropout: Dropout in attention and feed-forward networks.

    Raises:
        ValueError: The kernel size is even, or there are more tokens than positions.
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
        kernel: int = 3,
        stride: int = 2,
        tokens: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self._count = length if tokens is None else tokens
        if kernel % 2 == 0:
            raise ValueError(f"the conv adapter's kernel must be odd, not {kernel}")
        if self._count > length:
            raise ValueError(f"{tokens} tokens do not fit into a prompt of {length} positions")
        self.proj_in = nn.Linear(token_width, width)
        self.layers = nn.ModuleList(
            StridedLayer(width, heads, kernel, stride, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.position_mixer = PositionMixer(
            self._count, length, width, embed_width, pooled_width, dropout
        )

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standardized embeds (B, L, D), and pooled (B, P) or None; see `align.models.adapters`."""
        tokens, mask = compact_tokens(tokens, mask)
        tokens = self.proj_in(tokens)
        for layer in self.layers:
            tokens, mask = layer(tokens, mask)
        embeds, pooled = self.position_mixer(pool_to_length(self.norm(tokens), mask, self._count))
        return embeds, pooled
