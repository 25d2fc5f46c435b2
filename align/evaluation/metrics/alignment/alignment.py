"""Distances between predicted and reference embeds: a metric for `evaluate`.

    metric = evaluate.load("align/evaluation/metrics/alignment")
    metric.compute(predictions=predictions, references=references)

The file is self-contained, so it can be loaded by path and copied anywhere.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

DESCRIPTION = """Euclidean distance, cosine, centered cosine and mean squared error of each row.

The Euclidean distance, the cosine and the mean squared error are those reported by audio2img.
Prompt embeds share a large constant component, so the cosine of any two is near 1. The centered
cosine subtracts a center first, so that unrelated rows have a cosine near 0.
"""
INPUTS = """
Args:
    predictions: N rows of D values (whole sequences, flattened).
    references: N rows of D values: the target of each prediction.
    center: D values subtracted for the centered cosine. Defaults to the mean of the references,
        which requires at least two different ones. Pass the mean of the training captions to
        make results on different test sets comparable.
    std: D values that divide the centered rows. Defaults to 1.
    per_row: Return lists of N values instead of their means.

Returns:
    euclidean: Euclidean distance; 0 is best.
    cosine, centered_cosine: Cosine; 1 is best, and a zero row counts as 0.
    mse: Mean over D of the squared differences; 0 is best.
"""


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine (N,) of the rows of two arrays (N, D); 0 where a row is zero."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = np.einsum("nd,nd->n", left, right)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def _row(values: object, width: int, name: str) -> np.ndarray:
    row = np.asarray(values, np.float64).reshape(-1)
    if len(row) != width:
        raise ValueError(f"{name} has {len(row)} values but the rows have {width}")
    return row


class Alignment(evaluate.Metric):
    """Distances between embeds; see `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[float]],
        center: object = None,
        std: object = None,
        per_row: bool = False,
    ) -> dict[str, float | list[float]]:
        if len({len(row) for row in [*predictions, *references]}) != 1:
            raise ValueError("all predictions and references must have the same length")
        ours, theirs = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            raise ValueError("predictions and references must be finite")
        width = ours.shape[1]
        middle = theirs.mean(0) if center is None else _row(center, width, "center")
        scale = np.ones(width) if std is None else _row(std, width, "std")
        if not (scale > 0).all():
            raise ValueError("all values of std must be above 0")
        if center is None and not np.ptp(theirs, axis=0).any():
            raise ValueError(
                "all references are identical: pass center to compute the centered cosine"
            )
        found = {
            "euclidean": np.linalg.norm(ours - theirs, axis=1),
            "cosine": _cosine(ours, theirs),
            "centered_cosine": _cosine((ours - middle) / scale, (theirs - middle) / scale),
            "mse": np.square(ours - theirs).mean(1),
        }
        return {k: v.tolist() if per_row else float(v.mean()) for k, v in found.items()}
