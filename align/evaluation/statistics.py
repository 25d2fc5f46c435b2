"""Similarity of embeds, and estimates with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional as F

CANDIDATE_CHUNK_SIZE = 512  # candidates loaded at a time


class RowLookup(Protocol):
    """Rows by index: a tensor, or an object that loads or computes them on access."""

    def __len__(self) -> int: ...
    def __getitem__(self, which: torch.Tensor, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95% confidence interval.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of cases.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def proportion(cls, correct: Sequence[bool]) -> Estimate:
        """A share of cases, with the Wilson score interval.

        Raises:
            ValueError: There are no cases.
        """
        if not len(correct):
            raise ValueError("a proportion needs at least one case")
        from scipy.stats import binomtest

        n, count = len(correct), sum(map(bool, correct))
        interval = binomtest(count, n).proportion_ci(method="wilson")
        # Rounding must not exclude the share itself.
        low, high = min(count / n, interval.low), max(count / n, interval.high)
        return cls(count / n, max(0.0, low), min(1.0, high), n)

    @classmethod
    def mean(
        cls, values: torch.Tensor, minimum: float = -math.inf, maximum: float = math.inf
    ) -> Estimate:
        """A mean, with the normal interval of its standard error.

        Args:
            values: Values (n,).
            minimum: Lower bound of a value; the interval is clipped to it.
            maximum: Upper bound of a value; the interval is clipped to it.
        """
        n, center = len(values), values.double().mean().item()
        half = 1.959964 * values.double().std().item() / math.sqrt(n) if n > 1 else 0.0
        return cls(center, max(minimum, center - half), min(maximum, center + half), n)


def centered_cosine(standardized: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cosine (N,) of whole standardized sequences (N, L, D), row by row.

    Standardized embeds are centered, so unrelated captions have a cosine near 0; raw embeds always
    have a cosine near 1.
    """
    return F.cosine_similarity(standardized.flatten(1), target.flatten(1), dim=1)


def scores(standardized: torch.Tensor, candidates: RowLookup) -> torch.Tensor:
    """Centered cosine (N, K) between predictions (N, ...) and candidates (K, ...), in chunks."""
    left = F.normalize(standardized.flatten(1), dim=1)
    numbers = torch.arange(len(candidates)).split(CANDIDATE_CHUNK_SIZE)
    parts = [left @ F.normalize(candidates[some].flatten(1), dim=1).T for some in numbers]
    return torch.cat(parts, 1)


def nearest(standardized: torch.Tensor, candidates: RowLookup) -> torch.Tensor:
    """Index (N,) of the candidate (K, L, D) nearest to each prediction, by centered cosine."""
    return scores(standardized, candidates).argmax(1)


def mean_centered_cosine(predicted: torch.Tensor, target: torch.Tensor) -> Estimate:
    """Mean centered cosine of the rows of two tensors (N, L, D)."""
    return Estimate.mean(centered_cosine(predicted, target), -1, 1)


def flatten_metrics(estimates: dict[str, Estimate]) -> dict[str, Any]:
    """Flattens estimates to the keys of metrics.json: value, `_interval` and `_n`."""
    out: dict[str, Any] = {}
    for name, figure in estimates.items():
        out[name] = round(figure.value, 4)
        out[f"{name}_interval"] = [round(figure.low, 4), round(figure.high, 4)]
        out[f"{name}_n"] = figure.n
    return out


def format_table(estimates: dict[str, Estimate]) -> str:
    """Formats estimates as a text table."""
    width = max(len(name) for name in estimates)
    lines = [
        f"{name:<{width}}  {m.value:7.3f}  [{m.low:.3f}, {m.high:.3f}]  {m.n:>6}"
        for name, m in estimates.items()
    ]
    head = f"{'':<{width}}  {'value':>7}  {'95% interval':<14}  {'cases':>6}"
    return "\n".join([head, *lines])


# The metrics that a run prints without `--verbose`, in order, with what each of them is.
MAIN_METRICS = {
    "image_accuracy": "generated images that show the class of the audio",
    "image_accuracy_text": "the same, generated from the true captions (ceiling)",
    "class_accuracy": "clips whose embeds are closest to their own class",
    "centered_cosine": "cosine of predicted and true prompt embeds, centered",
    "centered_cosine_oracle": "the same for an oracle that knows every source (ceiling)",
    "object_accuracy": "generated images that show the object of the audio",
    "object_accuracy_scale0": "the same at audio scale 0 (chance)",
    "scene_accuracy": "generated images that show the scene of the prompt",
    "text_accuracy_before": "images from text alone that match it, base model",
    "text_accuracy_after": "the same with the adapter attached",
}


def format_summary(estimates: dict[str, Estimate]) -> str:
    """Formats the main metrics: a sentence, then a table with a description of each.

    Args:
        estimates: by metric name; those that are not in `MAIN_METRICS` are left out.
    """
    main = {name: estimates[name] for name in MAIN_METRICS if name in estimates}
    lines = [sentence] if (sentence := _sentence(main)) else []
    if main:
        width = max(map(len, main))
        lines += ["", f"{'':<{width}}  {'value':>7}  95% interval    cases"]
        lines += [
            f"{name:<{width}}  {m.value:7.3f}  [{m.low:.3f}, {m.high:.3f}]  {m.n:>5}  "
            f"{MAIN_METRICS[name]}"
            for name, m in main.items()
        ]
    return "\n".join(lines)


def _sentence(main: dict[str, Estimate]) -> str:
    for name, shown, other, reference in (
        ("image_accuracy", "generated images show the right class", "image_accuracy_text",
         "from the true captions"),
        ("object_accuracy", "generated images show the right object", "object_accuracy_scale0",
         "at audio scale 0"),
        ("class_accuracy", "clips are assigned to the right class", "", ""),
    ):  # fmt: skip
        if name in main:
            sentence = f"{_share(main[name])} {shown}"
            if other in main:
                sentence += f"; {reference} {_share(main[other])}"
            return f"{sentence}."
    return ""


def _share(proportion: Estimate) -> str:
    return f"{round(proportion.value * proportion.n)} of {proportion.n}"
