"""Recordings as a trained encoder hears them: what an adapter and a pipeline start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class AudioConditioning:
    """Recordings, one a row.

    Attributes:
        tokens: (B, S, H) audio tokens.
        mask: (B, S) bool, true where a token was heard.
        embeds: (B, L, D) prompt embeds by the aligned encoder.
        pooled: (B, P), or None where the pipeline takes none.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    embeds: torch.Tensor
    pooled: torch.Tensor | None = None


def encode_audio(encoder: Any, clips: Sequence[Any], space: str | None = None) -> AudioConditioning:
    """Listens to whole recordings, each alone, so that none depends on its neighbours.

    Args:
        encoder: an `AudioPromptEncoder`.
        recordings: each anything that `align.audio.read` takes.
        space: the encoder's prompt space; its default one if not given.

    Raises:
        AudioError: a recording cannot be read or has nothing to hear.
        ValueError: there is no recording, or no such space.
    """
    prompts, tokens, mask = encoder.encode_with_tokens(list(clips), space=space)
    return AudioConditioning(tokens, mask, prompts.embeds, prompts.pooled)
