"""How well embeds fit, and how sure that is: measures and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional as F

AT_ONCE = 512  # candidates compared with


class Rows(Protocol):
    """Rows by number: a tensor, or what computes them when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, which: torch.Tensor, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class Measured:
    """A figure between its 95% interval's ends, from n cases."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def share(cls, right: Sequence[bool]) -> Measured:
        """A share of cases, with Wilson's score interval.

        Raises:
            ValueError: there are no cases.
        """
        if not len(right):
            raise ValueError("a share of no cases")
        from scipy.stats import binomtest

        n, count = len(right), sum(map(bool, right))
        interval = binomtest(count, n).proportion_ci(method="wilson")
        # Rounding must not leave the share itself outside.
        low, high = min(count / n, interval.low), max(count / n, interval.high)
        return cls(count / n, max(0.0, low), min(1.0, high), n)

    @classmethod
    def mean(
        cls, values: torch.Tensor, least: float = -math.inf, most: float = math.inf
    ) -> Measured:
        """A mean, with the normal interval of its standard error.

        Args:
            values: (n,).
            least, most: what a value can be: of few cases the interval would reach beyond.
        """
        n, centre = len(values), values.double().mean().item()
        half = 1.959964 * values.double().std().item() / math.sqrt(n) if n > 1 else 0.0
        return cls(centre, max(least, centre - half), min(most, centre + half), n)


def centred_cosine(standardised: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cosine of whole standardised sequences, row by row: (N,) from two (N, L, D).

    Standardised embeds are centred, so unrelated captions come out near 0; of raw embeds the
    cosine is near 1 whatever they say.
    """
    return F.cosine_similarity(standardised.flatten(1), target.flatten(1), dim=1)


def scores(standardised: torch.Tensor, candidates: Rows) -> torch.Tensor:
    """Centred cosine (N, K) of answers (N, ...) to candidates (K, ...), some of them at a time."""
    left = F.normalize(standardised.flatten(1), dim=1)
    numbers = torch.arange(len(candidates)).split(AT_ONCE)
    parts = [left @ F.normalize(candidates[some].flatten(1), dim=1).T for some in numbers]
    return torch.cat(parts, 1)


def nearest(standardised: torch.Tensor, candidates: Rows) -> torch.Tensor:
    """Which candidate (K, L, D) is nearest by centred cosine: (N,) for (N, L, D)."""
    return scores(standardised, candidates).argmax(1)


def mean_cosine(standardised: torch.Tensor, target: torch.Tensor) -> Measured:
    """The mean centred cosine of two (N, L, D), row by row."""
    return Measured.mean(centred_cosine(standardised, target), -1, 1)


def flat(measured: dict[str, Measured]) -> dict[str, Any]:
    """Figures as they stand in metrics.json: each share, its interval, and its count."""
    out: dict[str, Any] = {}
    for name, figure in measured.items():
        out[name] = round(figure.value, 4)
        out[f"{name}_interval"] = [round(figure.low, 4), round(figure.high, 4)]
        out[f"{name}_n"] = figure.n
    return out


def as_table(measured: dict[str, Measured]) -> str:
    """Figures as a table for people."""
    width = max(len(name) for name in measured)
    lines = [
        f"{name:<{width}}  {m.value:7.3f}  [{m.low:.3f}, {m.high:.3f}]  {m.n:>6}"
        for name, m in measured.items()
    ]
    head = f"{'':<{width}}  {'value':>7}  {'95% interval':<14}  {'cases':>6}"
    return "\n".join([head, *lines])
