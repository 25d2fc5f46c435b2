"""What a training step gets: features or tokens of recordings, and what their captions ask."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from align.augment import AugmentArguments, Scale, augment
from align.features import Heard
from align.listening import pad


class Recordings(Dataset):
    """Map-style rows addressed by (epoch, row): what is drawn at random follows from the two.

    That is what makes a resumed run see what an uninterrupted one would have.

    Args:
        heard: the recordings' features.
        targets: (N,) each row's caption, as a row of the caption table.
        augmentation: what is changed in training; None for evaluation.
        scale: the features' layout.
        seed: of the augmentation.
    """

    def __init__(
        self,
        heard: Heard,
        targets: torch.Tensor,
        augmentation: AugmentArguments | None = None,
        scale: Scale | None = None,
        seed: int = 0,
    ) -> None:
        self.heard, self.targets = heard, targets
        self._augmentation = augmentation if augmentation and augmentation.active else None
        self._scale, self._seed = scale, seed
        names = sorted(set(heard.labels))
        self.groups = [names.index(label) for label in heard.labels]
        self._members = [np.flatnonzero(np.equal(self.groups, g)) for g in range(len(names))]
        self._strangers = [np.flatnonzero(np.not_equal(self.groups, g)) for g in range(len(names))]

    def __len__(self) -> int:
        return len(self.heard)

    def __getitem__(self, where: int | tuple[int, int]) -> dict[str, Any]:
        epoch, row = where if isinstance(where, tuple) else (0, where)
        windows = self.heard.features[row]
        if self._augmentation is not None:
            rng = np.random.default_rng([self._seed, epoch, row])
            windows = [self._changed(window, row, rng) for window in windows]
        return {"windows": windows, "target": self.targets[row], "group": self.groups[row]}

    def _changed(self, window: np.ndarray, row: int, rng: np.random.Generator) -> np.ndarray:
        assert self._augmentation is not None and self._scale is not None
        members = self._members[self.groups[row]]
        same = self._one_window(int(members[rng.integers(len(members))]), rng)
        others = self._strangers[self.groups[row]]
        other = None
        if len(others):
            other = self._one_window(int(others[rng.integers(len(others))]), rng)
        return augment(window, self._augmentation, self._scale, rng, same, other)

    def _one_window(self, row: int, rng: np.random.Generator) -> np.ndarray:
        windows = self.heard.features[row]
        return windows[rng.integers(len(windows))]


class Tokens(Dataset):
    """Rows whose audio tokens were computed once: for a backbone that does not train.

    Args:
        tokens: (N, S, H).
        mask: (N, S).
        targets: (N,) each row's caption.
        groups: N.
    """

    def __init__(
        self, tokens: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor, groups: list[int]
    ) -> None:
        self._tokens, self._mask, self.targets, self.groups = tokens, mask, targets, groups

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, where: int | tuple[int, int]) -> dict[str, Any]:
        row = where[1] if isinstance(where, tuple) else where
        return {
            "tokens": self._tokens[row],
            "tokens_mask": self._mask[row],
            "target": self.targets[row],
            "group": self.groups[row],
        }


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of `Recordings` or `Tokens` as tensors, recordings padded and masked."""
    batch = {
        "target": torch.stack([row["target"] for row in rows]),
        "group": torch.tensor([row["group"] for row in rows]),
    }
    if "windows" in rows[0]:
        return batch | pad([row["windows"] for row in rows])
    batch["tokens"] = torch.stack([row["tokens"] for row in rows])
    batch["tokens_mask"] = torch.stack([row["tokens_mask"] for row in rows])
    return batch


class EpochSampler(Sampler):
    """Every row once an epoch, in an order that follows from seed and epoch, as (epoch, row)."""

    def __init__(self, rows: Sized, seed: int) -> None:
        self._rows, self._seed, self._epoch = rows, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        for row in rng.permutation(len(self._rows)):
            yield self._epoch, int(row)
