"""Pooling: the audio tokens of long recordings to a number that an adapter can attend to."""

from __future__ import annotations

import torch
from torch import nn


def pool_tokens(
    tokens: torch.Tensor, mask: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages runs of equal length of audio tokens until at most `most` are left.

    Every row is pooled by its own length, so that what a recording sounds like does not depend
    on how long the others of its batch are.

    Args:
        tokens: (B, S, H).
        mask: (B, S) bool; masked tokens do not count in a mean.
        most: the largest S allowed.

    Returns:
        (B, S', H) and (B, S') with S' <= most; unchanged where S <= most already.
    """
    if tokens.shape[1] <= most:
        return tokens, mask
    places = torch.arange(1, tokens.shape[1] + 1, device=mask.device)
    lengths = (mask * places).amax(1).clamp(min=1).tolist()
    rows = [
        _pool_row(row[:length], heard[:length], most)
        for row, heard, length in zip(tokens, mask, lengths, strict=True)
    ]
    pooled, heard = zip(*rows, strict=True)
    together = nn.utils.rnn.pad_sequence
    return together(list(pooled), batch_first=True), together(list(heard), batch_first=True)


def _pool_row(
    tokens: torch.Tensor, mask: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    run = -(-len(tokens) // most)
    if run == 1:
        return tokens, mask
    short = -len(tokens) % run
    tokens = nn.functional.pad(tokens, (0, 0, 0, short)).unflatten(0, (-1, run))
    weight = nn.functional.pad(mask, (0, short)).unflatten(0, (-1, run))
    mean = (tokens * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)
    return mean, weight.any(1)
