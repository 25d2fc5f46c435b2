"""Direct adapter: the audio tokens are the prompt."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.layers import compact_tokens


class Direct(nn.Module):
    """Uses audio token l as prompt position l, followed by learned padding.

    As in audio2img, whose Wav2Vec2-BERT ends in adapter layers of the text encoder's width, which
    output the prompt. Tokens beyond the last position are dropped. Only the padding is learned, so
    the backbone must be trained, now or before. Unlike other adapters, it predicts embeds in the
    pipeline's own scale, which the head standardizes.

    Args:
        token_width: H, width of the audio tokens.
        length: L, number of prompt positions.
        embed_width: D, width of the prompt embeds; must equal H.
        pooled_width: Must be 0: pooled embeds are not supported.

    Raises:
        ValueError: The widths of tokens and prompt differ, or pooled embeds are required.
    """

    predicts_raw_embeds = True

    def __init__(
        self, token_width: int, length: int, embed_width: int, pooled_width: int = 0
    ) -> None:
        super().__init__()
        if token_width != embed_width:
            raise ValueError(
                f"the direct adapter uses audio tokens as prompt embeds: their width is "
                f"{token_width} but the prompt's is {embed_width}; choose another adapter"
            )
        if pooled_width:
            raise ValueError("the direct adapter has no pooled embeds; choose another adapter")
        self.padding = nn.Parameter(torch.zeros(length, embed_width))

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeds (B, L, D) in the pipeline's scale, and None; see `align.models.adapters`."""
        length = len(self.padding)
        tokens, mask = compact_tokens(tokens, mask)
        short = max(0, length - tokens.shape[1])
        tokens = nn.functional.pad(tokens, (0, 0, 0, short))[:, :length]
        mask = nn.functional.pad(mask, (0, short))[:, :length]
        return torch.where(mask[..., None], tokens, self.padding), None
