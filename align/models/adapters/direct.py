"""The audio tokens themselves as the prompt."""

from __future__ import annotations

import torch
from torch import nn

from align.models.adapters.layers import compact_tokens


class Direct(nn.Module):
    """Audio token number l is position number l; learned padding stands behind the last.

    audio2img's way: its Wav2Vec2-BERT ends in adapter layers as wide as the text encoder, and what
    they give is the prompt. Of more tokens than positions the later ones are not used. It has
    nothing of its own to learn but the padding: the backbone must train, or have been trained.
    Alone among the adapters it answers in the pipeline's own terms, which its head standardises.

    Args:
        token_width: H, the audio tokens' width.
        length: L, the prompt's positions.
        embed_width: D, the prompt's width; the same as H.
        pooled_width: 0: tokens say nothing of pooled embeds.

    Raises:
        ValueError: the tokens are not as wide as the prompt, or pooled embeds are asked for.
    """

    predicts_raw_embeds = True

    def __init__(
        self, token_width: int, length: int, embed_width: int, pooled_width: int = 0
    ) -> None:
        super().__init__()
        if token_width != embed_width:
            raise ValueError(
                f"the direct adapter puts audio tokens in the prompt's place: they are "
                f"{token_width} wide and the prompt {embed_width}; choose another adapter"
            )
        if pooled_width:
            raise ValueError("the direct adapter gives no pooled embeds; choose another adapter")
        self.padding = nn.Parameter(torch.zeros(length, embed_width))

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeds (B, L, D), and None; see `align.models.adapters`."""
        length = len(self.padding)
        tokens, mask = compact_tokens(tokens, mask)
        short = max(0, length - tokens.shape[1])
        tokens = nn.functional.pad(tokens, (0, 0, 0, short))[:, :length]
        mask = nn.functional.pad(mask, (0, short))[:, :length]
        return torch.where(mask[..., None], tokens, self.padding), None
