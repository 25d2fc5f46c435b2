"""Metrics for `evaluate`, loaded by their path: nothing is asked of the hub.

alignment: how far prompt embeds are from those of the captions.
retrieval: whether a recording finds its caption, and a caption its recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
METRICS = ("alignment", "retrieval")


def load_metric(name: str) -> Any:
    """One of these metrics as an `evaluate.EvaluationModule`, its rows kept in memory.

    Raises:
        ValueError: there is no such metric.
    """
    if name not in METRICS:
        raise ValueError(f"there is no metric {name!r}; there are: {', '.join(METRICS)}")
    import evaluate

    return evaluate.load(str(FOLDER / name), keep_in_memory=True)
