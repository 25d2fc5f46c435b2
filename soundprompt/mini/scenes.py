"""Synthetic retrieval dataset: scenes of one to three sources, distinguished by level and order.

It contains more than a thousand captions, each of which matches one scene only. Captions describe
audible properties only: foreground, background and order, but not time of day or color.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
from datasets import Dataset

from soundprompt.mini.captions import BACKGROUND_TEMPLATES, audio_captions
from soundprompt.mini.sounds import SAMPLE_RATE, scene
from soundprompt.mini.source_hash import source_hash
from soundprompt.mini.world import CLASSES

# Disjoint from the seeds of soundprompt.mini.dataset and of pre-training.
SEEDS = {"train": 11_000_001, "test": 12_000_001}
TRAIN_ROWS = 3000


@dataclass(frozen=True)
class Scene:
    """Sources of a clip.

    Attributes:
        near: Classes in the foreground, one after another.
        far: Classes in the background for the whole clip.
    """

    near: tuple[str, ...]
    far: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Label of the scene; scenes of one or two sources have that of a `View`."""
        return " + ".join((" then ".join(self.near), *self.far))

    def caption(self, rng: np.random.Generator) -> str:
        """Sample a caption of the scene.

        Args:
            rng: Random generator.
        """
        phrases = {name: _choose(audio_captions(name), rng) for name in (*self.near, *self.far)}
        near = ", then ".join(phrases[name] for name in self.near)
        if not self.far:
            return near
        far = " and ".join(phrases[name] for name in self.far)
        return _choose(BACKGROUND_TEMPLATES, rng).format(near=near, far=far)


def _choose(among: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    return among[rng.integers(len(among))]


def all_scenes() -> list[Scene]:
    """List all 1,270 scenes.

    10 have one source, 90 one in the foreground and one in the background, 360 one in the
    foreground and two in the background, 90 two in sequence, and 720 two in sequence with a third
    in the background.
    """
    found = [Scene((name,)) for name in CLASSES]
    found += [Scene((near,), (far,)) for near, far in permutations(CLASSES, 2)]
    found += [
        Scene((near,), pair)
        for near in CLASSES
        for pair in combinations([name for name in CLASSES if name != near], 2)
    ]
    found += [Scene(pair) for pair in permutations(CLASSES, 2)]
    found += [Scene((first, then), (far,)) for first, then, far in permutations(CLASSES, 3)]
    return found


def _add_audio(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Add the audio of a batch of rows, generated from their seeds."""
    audio = [
        {"array": scene(near, far, np.random.default_rng(seed)), "sampling_rate": SAMPLE_RATE}
        for near, far, seed in zip(batch["near"], batch["far"], batch["seed"], strict=True)
    ]
    return {**batch, "audio": audio}


def scenes(split: str, n: int | None = None) -> Dataset:
    """Load clips of scenes in random order, all scenes equally often.

    Args:
        split: "train" or "test".
        n: Number of rows. Defaults to 3000 for "train" and to one row for each of the 1,270
            scenes for "test".

    Returns:
        A Dataset with the columns audio, caption, label, near, far, seed and source_hash (as in
        `soundprompt.mini.dataset.singles`).

    Raises:
        ValueError: There is no such split.
    """
    if split not in SEEDS:
        raise ValueError(f"mini has no split {split!r}: use one of {', '.join(SEEDS)}")
    every = all_scenes()
    count = n or (TRAIN_ROWS if split == "train" else len(every))
    rng = np.random.default_rng(SEEDS[split])
    rounds = [rng.permutation(len(every)) for _ in range(-(-count // len(every)))]
    chosen = [every[i] for i in np.concatenate(rounds)[:count]]
    rows = Dataset.from_dict(
        {
            "near": [list(one.near) for one in chosen],
            "far": [list(one.far) for one in chosen],
            "seed": [SEEDS[split] + i for i in range(count)],
            "caption": [one.caption(rng) for one in chosen],
            "label": [one.label for one in chosen],
            "source_hash": [source_hash("sounds")] * count,
        }
    )
    return rows.with_transform(_add_audio)
