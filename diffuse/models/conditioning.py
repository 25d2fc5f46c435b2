"""Audio conditioning: clips encoded by a trained audio encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class AudioConditioning:
    """Encoded clips, one per row.

    Attributes:
        tokens: Audio tokens (B, S, H).
        mask: Boolean mask (B, S), true for valid tokens.
        embeds: Prompt embeds (B, L, D) from the aligned encoder.
        pooled: Pooled prompt embeds (B, P), or None if the pipeline has none.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    embeds: torch.Tensor
    pooled: torch.Tensor | None = None


def encode_audio(encoder: Any, clips: Sequence[Any], space: str | None = None) -> AudioConditioning:
    """Encode clips one by one, so that no clip depends on the others in the batch.

    Args:
        encoder: An `AudioPromptEncoder`.
        clips: Clips, each anything that `align.audio.read` accepts.
        space: Prompt space of the encoder. Defaults to its default space.

    Returns:
        The encoded clips.

    Raises:
        AudioError: If a clip cannot be read or is empty.
        ValueError: If there is no clip, or no such space.
    """
    prompts, tokens, mask = encoder.encode_with_tokens(list(clips), space=space)
    return AudioConditioning(tokens, mask, prompts.embeds, prompts.pooled)
