"""Recordings as a trained encoder hears them: what an adapter and a pipeline start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from align.models.processing import pad


@dataclass(frozen=True)
class Heard:
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

    def row(self, index: int) -> Heard:
        """One recording alone."""
        pooled = None if self.pooled is None else self.pooled[index : index + 1]
        part = slice(index, index + 1)
        return Heard(self.tokens[part], self.mask[part], self.embeds[part], pooled)


@torch.no_grad()
def hear(encoder: Any, recordings: Sequence[Any], space: str | None = None) -> Heard:
    """Listens to whole recordings, each alone, so that none depends on its neighbours.

    Args:
        encoder: an `AudioPromptEncoder`.
        recordings: each anything that `align.audio.read` takes.
        space: the encoder's prompt space; its default one if not given.

    Raises:
        AudioError: a recording cannot be read or has nothing to hear.
        ValueError: there is no recording, or no such space.
    """
    head = encoder.head(space)
    if not recordings:
        raise ValueError("no recordings to hear")
    mode = encoder.training
    encoder.eval()
    try:
        rows = [_hear_one(encoder, head, recording) for recording in recordings]
    finally:
        encoder.train(mode)
    together = torch.nn.utils.rnn.pad_sequence
    pooled = [row.pooled for row in rows if row.pooled is not None]
    return Heard(
        together([row.tokens[0] for row in rows], batch_first=True),
        together([row.mask[0] for row in rows], batch_first=True),
        torch.cat([row.embeds for row in rows]),
        torch.cat(pooled) if pooled else None,
    )


def _hear_one(encoder: Any, head: Any, recording: Any) -> Heard:
    batch = pad([encoder.ear.features(recording)])
    features = batch["features"].to(encoder.device, encoder.dtype)
    tokens, mask = encoder.tokens(features, batch["features_mask"].to(encoder.device))
    prompts = head.prompts(*head(tokens, mask))
    return Heard(tokens, mask, prompts.embeds, prompts.pooled)
