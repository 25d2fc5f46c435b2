"""Audio-to-caption and caption-to-audio retrieval: a metric for `evaluate`.

    metric = evaluate.load("align/evaluation/metrics/retrieval")
    metric.compute(predictions=scores, references=relevant)

The file is self-contained, so it can be loaded by path and copied anywhere.
"""

from __future__ import annotations

import datasets
import evaluate
import numpy as np

DESCRIPTION = """R@1, R@5, R@10 and mAP@10 in both directions.

R@k is the share of queries with a relevant candidate among the k with the highest scores. mAP@10
is the mean average precision of the first ten candidates: the sum of the precision at each relevant
candidate, divided by the number of relevant candidates that could be among ten (Manning, Raghavan
and Schütze 2008, "Introduction to Information Retrieval", chapter 8.4, truncated at ten).

A row has one relevant candidate for retrieval by caption, several for datasets with several
captions per clip (five in AudioCaps' test set), and one class for retrieval by class.
"""
INPUTS = """
Args:
    predictions: N rows of M scores, one per candidate; higher is nearer.
    references: N lists with the indices (from 0) of the relevant candidates of each row.
    per_query: Return lists with one value per query instead of their means.

Returns:
    forward_R@1, forward_R@5, forward_R@10, forward_mAP@10: From rows to candidates.
    backward_R@1, ...: From candidates to rows; candidates that are relevant to no row are left
    out. Ties rank irrelevant candidates first, so that constant predictions score 0.
"""
DEPTHS = (1, 5, 10)


def _query_metrics(scores: np.ndarray, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of every query, from scores (Q, M) and relevance (Q, M)."""
    # The last key is the primary one: by score, with irrelevant candidates first among ties.
    order = np.lexsort((relevant, -scores), axis=1)
    hits = np.take_along_axis(relevant, order, axis=1)
    found = {f"R@{k}": hits[:, :k].any(1).astype(float) for k in DEPTHS}
    top = hits[:, :10]
    precision = top.cumsum(1) / np.arange(1, top.shape[1] + 1)
    possible = np.minimum(relevant.sum(1), 10)
    found["mAP@10"] = (precision * top).sum(1) / possible
    return found


class Retrieval(evaluate.Metric):
    """Retrieval in both directions; see `DESCRIPTION` and `INPUTS`."""

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
            raise ValueError("predictions must be rows with one score for every candidate")
        scores = np.asarray(predictions, np.float64)
        if not np.isfinite(scores).all():
            raise ValueError("scores must be finite")
        relevant = np.zeros(scores.shape, bool)
        for i, relevant_ids in enumerate(references):
            if not len(relevant_ids) or min(relevant_ids) < 0 or max(relevant_ids) >= width:
                raise ValueError(
                    f"row {i} has the relevant candidates {list(relevant_ids)}: give at least one "
                    f"index from 0 to {width - 1}"
                )
            relevant[i, np.asarray(relevant_ids)] = True
        named = relevant.any(0)
        ways = {"forward": (scores, relevant), "backward": (scores.T[named], relevant.T[named])}
        return {
            f"{way}_{name}": values.tolist() if per_query else float(values.mean())
            for way, matrices in ways.items()
            for name, values in _query_metrics(*matrices).items()
        }
