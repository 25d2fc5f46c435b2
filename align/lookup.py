"""Targets looked up by number: held where they are few, read from where they lie where not."""

from __future__ import annotations

import math

import torch
from torch import nn

from align.prompts import Statistics
from align.targets import HELD_BYTES, Shares


class Targets(nn.Module):
    """Standardised rows, each computed when it is asked for, on the device of who asks.

    Args:
        rows: (C, ...) of captions, in any precision; they stay where they are, such as in a
            memory-mapped file.
        statistics: what standardises them.
        shares: where a target is a label's mean over its captions' rows.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    constant: torch.Tensor

    def __init__(
        self, rows: torch.Tensor, statistics: Statistics, shares: Shares | None = None
    ) -> None:
        super().__init__()
        self._rows, self._shares = [rows], shares  # in a list: no buffer, which would be moved
        for name, value in vars(statistics).items():
            self.register_buffer(name, value.clone(), persistent=False)

    def __len__(self) -> int:
        return len(self._rows[0] if self._shares is None else self._shares.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""
        return len(self), *self._rows[0].shape[1:]

    def __getitem__(self, which: torch.Tensor) -> torch.Tensor:
        """The targets (N, ...) of numbers (N,), in float32."""
        here, rows = which.cpu(), self._rows[0]
        found = rows[here].float() if self._shares is None else self._shares.means(rows, here)
        return self.standardise(found.to(self.mean.device)).to(which.device)

    def standardise(self, rows: torch.Tensor) -> torch.Tensor:
        """As `Statistics.standardise`."""
        return Statistics(self.mean, self.spread, self.constant).standardise(rows)


def targets(
    rows: torch.Tensor, statistics: Statistics, shares: Shares | None = None
) -> torch.Tensor | Targets:
    """Standardised rows, all at once where they are few; the arguments are those of `Targets`."""
    found = Targets(rows, statistics, shares)
    if 4 * math.prod(found.shape) > HELD_BYTES:
        return found
    return found[torch.arange(len(found))]
