"""How well embeds fit, and how sure that is: measures and their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional as F

CANDIDATE_CHUNK_SIZE = 512  # candidates compared with


class RowLookup(Protocol):
    """Rows by number: a tensor, or what computes them when they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, which: torch.Tensor, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class Estimate:
    """A figure between its 95% interval's ends, from n cases."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def proportion(cls, correct: Sequence[bool]) -> Estimate:
        """A share of cases, with Wilson's score interval.

        Raises:
            ValueError: there are no cases.
        """
        if not len(correct):
            raise ValueError("a share of no cases")
        from scipy.stats import binomtest

        n, count = len(correct), sum(map(bool, correct))
        interval = binomtest(count, n).proportion_ci(method="wilson")
        # Rounding must not leave the share itself outside.
        low, high = min(count / n, interval.low), max(count / n, interval.high)
        return cls(count / n, max(0.0, low), min(1.0, high), n)

    @classmethod
    def mean(
        cls, values: torch.Tensor, minimum: float = -math.inf, maximum: float = math.inf
    ) -> Estimate:
        """A mean, with the normal interval of its standard error.

        Args:
            values: (n,).
            least, most: what a value can be: of few cases the interval would reach beyond.
        """
        n, center = len(values), values.double().mean().item()
        half = 1.959964 * values.double().std().item() / math.sqrt(n) if n > 1 else 0.0
        return cls(center, max(minimum, center - half), min(maximum, center + half), n)


def centered_cosine(standardized: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cosine of whole standardised sequences, row by row: (N,) from two (N, L, D).

    Standardised embeds are centred, so unrelated captions come out near 0; of raw embeds the
    cosine is near 1 whatever they say.
    """
    return F.cosine_similarity(standardized.flatten(1), target.flatten(1), dim=1)


def scores(standardized: torch.Tensor, candidates: RowLookup) -> torch.Tensor:
    """Centred cosine (N, K) of answers (N, ...) to candidates (K, ...), some of them at a time."""
    left = F.normalize(standardized.flatten(1), dim=1)
    numbers = torch.arange(len(candidates)).split(CANDIDATE_CHUNK_SIZE)
    parts = [left @ F.normalize(candidates[some].flatten(1), dim=1).T for some in numbers]
    return torch.cat(parts, 1)


def nearest(standardized: torch.Tensor, candidates: RowLookup) -> torch.Tensor:
    """Which candidate (K, L, D) is nearest by centred cosine: (N,) for (N, L, D)."""
    return scores(standardized, candidates).argmax(1)


def mean_centered_cosine(predicted: torch.Tensor, target: torch.Tensor) -> Estimate:
    """The mean centred cosine of two (N, L, D), row by row."""
    return Estimate.mean(centered_cosine(predicted, target), -1, 1)


def flatten_metrics(estimates: dict[str, Estimate]) -> dict[str, Any]:
    """Figures as they stand in metrics.json: each share, its interval, and its count."""
    out: dict[str, Any] = {}
    for name, figure in estimates.items():
        out[name] = round(figure.value, 4)
        out[f"{name}_interval"] = [round(figure.low, 4), round(figure.high, 4)]
        out[f"{name}_n"] = figure.n
    return out


def format_table(estimates: dict[str, Estimate]) -> str:
    """Figures as a table for people."""
    width = max(len(name) for name in estimates)
    lines = [
        f"{name:<{width}}  {m.value:7.3f}  [{m.low:.3f}, {m.high:.3f}]  {m.n:>6}"
        for name, m in estimates.items()
    ]
    head = f"{'':<{width}}  {'value':>7}  {'95% interval':<14}  {'cases':>6}"
    return "\n".join([head, *lines])
