"""Recordings that find their captions and captions their recordings: a metric for `evaluate`.

    metric = evaluate.load("align/evaluation/metrics/retrieval")
    metric.compute(predictions=scores, references=right)

It stands alone, so that it can be loaded by its path and copied anywhere.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

DESCRIPTION = """R@1, R@5, R@10 and mAP@10, both ways.

R@k is the share of queries with a right candidate among the k that score highest. mAP@10 is the
mean over queries of the average precision of the first ten: the sum of the precision at each right
one of them, divided by how many right ones there could be among ten (Manning, Raghavan and Schütze
2008, "Introduction to Information Retrieval", chapter 8.4, cut at ten).

One right candidate a row is retrieval by caption; several are that of data sets with several
captions a recording (five in AudioCaps' test set); with classes as candidates it is by class.
"""
INPUTS = """
Args:
    predictions: N rows of M scores, one a candidate; higher is nearer.
    references: N lists: the numbers (from 0) of the candidates that are right for the row.
    per_query: answer lists of one figure a query in place of their means.

Returns:
    forward_R@1, forward_R@5, forward_R@10, forward_mAP@10: from the rows to the candidates, and
    backward_R@1, ...: from the candidates to the rows. A candidate that no row names is not
    asked for backward. Where scores are equal, the wrong candidate goes first: who always says
    the same finds nothing.
"""
DEPTHS = (1, 5, 10)


def _query_metrics(scores: np.ndarray, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Every query's figures, from scores (Q, M) and what is right (Q, M)."""
    # The last key sorts first: by score, and among equal ones the wrong ahead of the right.
    order = np.lexsort((relevant, -scores), axis=1)
    hits = np.take_along_axis(relevant, order, axis=1)
    found = {f"R@{k}": hits[:, :k].any(1).astype(float) for k in DEPTHS}
    top = hits[:, :10]
    precision = top.cumsum(1) / np.arange(1, top.shape[1] + 1)
    possible = np.minimum(relevant.sum(1), 10)
    found["mAP@10"] = (precision * top).sum(1) / possible
    return found


class Retrieval(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[list[int]],
        per_query: bool = False,
    ) -> dict[str, float | list[float]]:
        width = len(predictions[0]) if predictions else 0
        if not width or any(len(row) != width for row in predictions):
            raise ValueError("there must be rows, each with one score for every candidate")
        scores = np.asarray(predictions, np.float64)
        if not np.isfinite(scores).all():
            raise ValueError("a score is not a finite number")
        relevant = np.zeros(scores.shape, bool)
        for i, relevant_ids in enumerate(references):
            if not len(relevant_ids) or min(relevant_ids) < 0 or max(relevant_ids) >= width:
                raise ValueError(
                    f"row {i} names the right candidates {list(relevant_ids)}: give at least one, "
                    f"from 0 to {width - 1}"
                )
            relevant[i, np.asarray(relevant_ids)] = True
        named = relevant.any(0)
        ways = {"forward": (scores, relevant), "backward": (scores.T[named], relevant.T[named])}
        return {
            f"{way}_{name}": values.tolist() if per_query else float(values.mean())
            for way, matrices in ways.items()
            for name, values in _query_metrics(*matrices).items()
        }
