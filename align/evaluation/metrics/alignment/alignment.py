"""Distances of embeds from the embeds they should be: a metric for `evaluate`.

    metric = evaluate.load("align/evaluation/metrics/alignment")
    metric.compute(predictions=ours, references=theirs)

It stands alone, so that it can be loaded by its path and copied anywhere.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

DESCRIPTION = """Euclidean distance, cosine, centred cosine and mean squared error, row by row.

The Euclidean distance, the cosine and the mean squared error are those that audio2img reported.
Embeds of prompts share a large constant part, so that their cosine is near 1 whatever they say:
the centred cosine is that of what is left when a centre is taken away. Unrelated rows come out
near 0 then.
"""
INPUTS = """
Args:
    predictions: N rows, each of D numbers (whole sequences flattened).
    references: N rows of D numbers: what each prediction should be.
    centre: D numbers, taken away for the centred cosine; the mean of the references by default,
        which needs at least two different ones. Give the training captions' mean where there is
        one: then figures of different test sets compare.
    spread: D numbers by which the centred rows are divided; 1 by default.
    per_row: answer lists of N figures in place of their means.

Returns:
    euclidean: the distance, 0 at best.
    cosine, centered_cosine: 1 at best; a row without length counts as 0.
    mse: the mean over D of the squared differences, 0 at best.
"""


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Row by row (N,) of two (N, D); 0 where a row has no length."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = np.einsum("nd,nd->n", left, right)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def _row(values: object, width: int, name: str) -> np.ndarray:
    row = np.asarray(values, np.float64).reshape(-1)
    if len(row) != width:
        raise ValueError(f"{name} has {len(row)} numbers and the rows have {width}")
    return row


class Alignment(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

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
            raise ValueError("all predictions and references must have the same number of numbers")
        ours, theirs = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            raise ValueError("a prediction or a reference is not a finite number")
        width = ours.shape[1]
        middle = theirs.mean(0) if center is None else _row(center, width, "center")
        scale = np.ones(width) if std is None else _row(std, width, "std")
        if not (scale > 0).all():
            raise ValueError("every number of std must be above 0")
        if center is None and not np.ptp(theirs, axis=0).any():
            raise ValueError("the references are all the same: give center for the centred cosine")
        found = {
            "euclidean": np.linalg.norm(ours - theirs, axis=1),
            "cosine": _cosine(ours, theirs),
            "centered_cosine": _cosine((ours - middle) / scale, (theirs - middle) / scale),
            "mse": np.square(ours - theirs).mean(1),
        }
        return {k: v.tolist() if per_row else float(v.mean()) for k, v in found.items()}
