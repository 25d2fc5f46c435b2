"""The miniature's data sets: procedural recordings with captions, made when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from mini.captions import heard
from mini.sounds import SAMPLE_RATE, recording
from mini.world import CLASSES, random_view

ROWS = {"train": 1500, "test": 250}
# Pre-training (mini.build) draws its sounds from other seeds than these.
SEEDS = {"train": 7_000_001, "test": 8_000_001}


def _sound(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Adds the recordings of a batch of rows, computed from their seeds."""
    sounds = [
        {
            "array": recording(near, far or None, np.random.default_rng(seed)),
            "sampling_rate": SAMPLE_RATE,
        }
        for near, far, seed in zip(batch["near"], batch["far"], batch["seed"], strict=True)
    ]
    return {**batch, "recording": sounds}


def _rows(split: str, far_share: float, n: int | None) -> Dataset:
    if split not in ROWS:
        raise ValueError(f"the miniature has no split {split!r}; it has: {', '.join(ROWS)}")
    views, captions, seeds = [], [], []
    for i in range(n or ROWS[split]):
        seed = SEEDS[split] + i
        rng = np.random.default_rng([seed, int(far_share)])
        views.append(random_view(rng, near=CLASSES[i % len(CLASSES)], far_share=far_share))
        captions.append(heard(views[-1], rng))
        seeds.append(seed)
    rows = Dataset.from_dict(
        {
            "near": [view.near for view in views],
            "far": [view.far or "" for view in views],
            "seed": seeds,
            "caption": captions,
            "label": [view.label for view in views],
        }
    )
    return rows.with_transform(_sound)


def singles(split: str, n: int | None = None) -> Dataset:
    """Recordings of one thing each, the classes in turn.

    Args:
        split: "train" or "test".
        n: rows; 1500 to train and 250 to test by default.

    Returns:
        A Dataset with the columns recording, caption (one of several wordings of what is heard),
        label, near, far ("" here) and seed.
    """
    return _rows(split, 0.0, n)


def mixtures(split: str, n: int | None = None) -> Dataset:
    """Recordings of two things, one near and one in the background; columns as `singles`."""
    return _rows(split, 1.0, n)
