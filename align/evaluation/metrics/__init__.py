"""Metrics for `evaluate`, loaded by path, without access to the Hub.

alignment: Distances between prompt embeds and those of the captions.
retrieval: Audio-to-caption and caption-to-audio retrieval.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
METRICS = ("alignment", "retrieval")


def load_metric(name: str) -> Any:
    """Loads one of these metrics as an `evaluate.EvaluationModule` that stores its rows in memory.

    Raises:
        ValueError: The metric is unknown.
    """
    if name not in METRICS:
        raise ValueError(f"there is no metric {name!r}; there are: {', '.join(METRICS)}")
    import evaluate

    return evaluate.load(str(FOLDER / name), keep_in_memory=True)
