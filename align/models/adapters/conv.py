"""Strided convolutions over time."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.layers import PositionMixer, compact_tokens, pool_to_length


class StridedLayer(nn.Module):
    """Two strided, gated convolutions, self-attention on one of them, and a feed-forward network.

    An adapter layer of Wav2Vec2-BERT (Chung et al. 2021, Barrault et al. 2023), with the mask
    before the convolutions too: there, a short recording's last token hears its padding.
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
        """Tokens (B, S, W), heard ones first, and their mask, shortened by the stride."""
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
    """Wav2Vec2-BERT's own kind of adapter, then slots of equal time, then positions.

    audio2img put what such layers leave of 3.75 s, 47 tokens, in the prompt's place. A recording
    of any length is averaged here into a stated number of tokens in order of time: 47 as there,
    or, by default, one for every position.

    Args:
        token_width: H, the audio tokens' width.
        length: L, the prompt's positions.
        embed_width: D, the prompt's width.
        pooled_width: P of the pooled embeds, 0 where the pipeline takes none.
        width: the adapter's own.
        depth: strided layers.
        heads: attention heads.
        kernel: of the convolutions; odd.
        stride: by which each layer shortens the sequence.
        tokens: left of a recording; as many as positions if not given.
        dropout: in attention and feed-forward.

    Raises:
        ValueError: the kernel is even, or there are more tokens than positions.
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
        """Standardised embeds (B, L, D), and pooled (B, P) or None; see `align.models.adapters`."""
        tokens, mask = compact_tokens(tokens, mask)
        tokens = self.proj_in(tokens)
        for layer in self.layers:
            tokens, mask = layer(tokens, mask)
        embeds, pooled = self.position_mixer(pool_to_length(self.norm(tokens), mask, self._count))
        return embeds, pooled
