"""Scenes of the miniature: one to three sounds, told apart by what is near, behind, and when.

They are there to measure retrieval: more than a thousand captions, no two of which are true of
the same recording. A caption says what the sound determines and nothing else. Daylight and colour
cannot be heard and are not named; what is near or behind, and what comes first, can.
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

# Other seeds than those of soundprompt.mini.dataset and of the pre-training.
SEEDS = {"train": 11_000_001, "test": 12_000_001}
TRAIN_ROWS = 3000


@dataclass(frozen=True)
class Scene:
    """What is heard: things near, one after another, and things behind all the time."""

    near: tuple[str, ...]
    far: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The scene in short; that of one or two things as a `View` labels it."""
        return " + ".join((" then ".join(self.near), *self.far))

    def caption(self, rng: np.random.Generator) -> str:
        """One of the scene's wordings."""
        phrases = {name: _choose(audio_captions(name), rng) for name in (*self.near, *self.far)}
        near = ", then ".join(phrases[name] for name in self.near)
        if not self.far:
            return near
        far = " and ".join(phrases[name] for name in self.far)
        return _choose(BACKGROUND_TEMPLATES, rng).format(near=near, far=far)


def _choose(among: tuple[str, ...] | list[str], rng: np.random.Generator) -> str:
    return among[rng.integers(len(among))]


def all_scenes() -> list[Scene]:
    """Every scene, 1,270 of them.

    10 of one thing, 90 mixtures of one near and one behind, 360 with two behind, 90 of two things
    in turn, and 720 of two in turn with a third behind.
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
    """Adds the recordings of a batch of rows, computed from their seeds."""
    audio = [
        {"array": scene(near, far, np.random.default_rng(seed)), "sampling_rate": SAMPLE_RATE}
        for near, far, seed in zip(batch["near"], batch["far"], batch["seed"], strict=True)
    ]
    return {**batch, "audio": audio}


def scenes(split: str, n: int | None = None) -> Dataset:
    """Recordings of scenes, every scene as often as any other, in mixed order.

    Args:
        split: "train" or "test".
        n: rows; 3000 to train, and by default one of each of the 1,270 scenes to test.

    Returns:
        A Dataset with the columns recording, caption, label, near, far, seed and version (as
        soundprompt.mini.dataset.singles).
    """
    if split not in SEEDS:
        raise ValueError(f"the miniature has no split {split!r}; it has: {', '.join(SEEDS)}")
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
