"""Synthetic datasets of the `mini` models, generated on access."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from soundprompt.mini.captions import audio_caption, caption, class_caption, scene_caption
from soundprompt.mini.pictures import render
from soundprompt.mini.sounds import SAMPLE_RATE, recording
from soundprompt.mini.source_hash import source_hash
from soundprompt.mini.world import CLASSES, View, random_view

ROWS = {"train": 1500, "test": 250}
PAIRS = {"train": 3000, "test": 300}
# Pre-training (soundprompt.mini.build) uses other seeds.
SEEDS = {"train": 7_000_001, "test": 8_000_001}
# The clips of pairs are different from those that encoders are trained on.
PAIR_SEEDS = {"train": 9_000_001, "test": 10_000_001}
SCENE_CAPTIONS = 2  # captions of a pair that name the time of day only, besides the full one


def _add_audio(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Add the audio of a batch of rows, generated from their seeds."""
    audio = [
        {
            "array": recording(near, far or None, np.random.default_rng(seed)),
            "sampling_rate": SAMPLE_RATE,
        }
        for near, far, seed in zip(batch["near"], batch["far"], batch["seed"], strict=True)
    ]
    return {**batch, "audio": audio}


def _rows(split: str, far_prob: float, n: int | None) -> Dataset:
    if split not in ROWS:
        raise ValueError(f"mini has no split {split!r}: use one of {', '.join(ROWS)}")
    views, captions, seeds = [], [], []
    for i in range(n or ROWS[split]):
        seed = SEEDS[split] + i
        rng = np.random.default_rng([seed, int(far_prob)])
        views.append(random_view(rng, near=CLASSES[i % len(CLASSES)], far_prob=far_prob))
        captions.append(audio_caption(views[-1], rng))
        seeds.append(seed)
    rows = Dataset.from_dict(
        {
            "near": [view.near for view in views],
            "far": [view.far or "" for view in views],
            "seed": seeds,
            "caption": captions,
            "label": [view.label for view in views],
            "source_hash": [source_hash("sounds")] * len(views),
        }
    )
    return rows.with_transform(_add_audio)


def singles(split: str, n: int | None = None) -> Dataset:
    """Load clips of single sources; the classes alternate.

    Args:
        split: "train" or "test".
        n: Number of rows. Defaults to 1500 for "train" and 250 for "test".

    Returns:
        A Dataset with the columns audio, caption, label, near (class in the foreground), far
        (class in the background, "" here), seed, and source_hash (hash of the generators' source,
        which invalidates outdated caches).
    """
    return _rows(split, 0.0, n)


def mixtures(split: str, n: int | None = None) -> Dataset:
    """Load clips of two sources, one in the foreground and one in the background.

    Args:
        split: "train" or "test".
        n: Number of rows. Defaults to 1500 for "train" and 250 for "test".

    Returns:
        A Dataset with the columns of `singles`.
    """
    return _rows(split, 1.0, n)


def _add_audio_and_images(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Add the audio and the images of a batch of pairs."""
    views = zip(batch["near"], batch["far"], batch["scene"], batch["color"], strict=True)
    images = [
        render(View(near, far or None, scene, color or None), np.random.default_rng([seed, 1]))
        for (near, far, scene, color), seed in zip(views, batch["seed"], strict=True)
    ]
    return _add_audio(batch) | {"image": images}


def _pair(view: View, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    texts = [scene_caption(view.scene, rng) for _ in range(SCENE_CAPTIONS)]
    return {
        "near": view.near,
        "far": view.far or "",
        "scene": view.scene,
        "color": view.color or "",
        "seed": seed,
        "caption": audio_caption(view, rng),
        "captions": [caption(view, rng, scene=True), *texts],
        "prompt": texts[-1],
        "label": view.label,
        "foreground": class_caption(view.near),
        "background": class_caption(view.far) if view.far else "",
        "ambience": "",
        "source_hash": source_hash("sounds", "pictures"),
    }


def pairs(split: str, n: int | None = None) -> Dataset:
    """Load pairs of clips and images; two thirds have a background.

    Args:
        split: "train" or "test".
        n: Number of rows. Defaults to 3000 for "train" and 300 for "test".

    Returns:
        A Dataset with the columns audio, image, caption (of the audio), captions (a full one, then
        captions of the time of day only), prompt (one of the latter), label, foreground,
        background and ambience (captions of the levels, "" for none), near, far, scene, color,
        seed and source_hash (as in `singles`).

    Raises:
        ValueError: There is no such split.
    """
    if split not in PAIRS:
        raise ValueError(f"mini has no split {split!r}: use one of {', '.join(PAIRS)}")
    rows = []
    for i in range(n or PAIRS[split]):
        seed = PAIR_SEEDS[split] + i
        rng = np.random.default_rng([seed, 0])
        turn, place = divmod(i, len(CLASSES))
        view = random_view(rng, near=CLASSES[place], far_prob=float(turn % 3 > 0))
        rows.append(_pair(view, seed, rng))
    return Dataset.from_list(rows).with_transform(_add_audio_and_images)
