"""What a training step gets of each pair; all that is random in it follows from its place.

That is what makes a resumed run see what an uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from diffuse.data.pairs import Pairs
from diffuse.data.preprocessing import Prepared
from diffuse.data.text_embeds import Texts
from diffuse.training.losses import class_weights


@dataclass(frozen=True)
class Dropout:
    """Shares of rows that go without their text, in silence, or both.

    Attributes:
        caption: of all rows, without their text alone.
        sound: of all rows, in silence alone.
        joint: of all rows, without both.
        behind: of the rows with a background: without it in the text, and without the foreground
            in the sound. So a UNet learns to put what is heard behind what is said.
    """

    caption: float = 0.0
    sound: float = 0.0
    joint: float = 0.0
    behind: float = 0.0

    def draw(self, rng: np.random.Generator) -> tuple[bool, bool]:
        """Whether a row keeps its text, and whether it keeps its sound."""
        u = rng.random()
        if u < self.joint:
            return False, False
        if u < self.joint + self.caption:
            return False, True
        return True, u >= self.joint + self.caption + self.sound


class TrainingPairs(Dataset):
    """Map-style rows addressed by (epoch, draw, row); without an epoch, as evaluation sees them.

    Args:
        pairs: their captions and labels.
        prepared: their tensors.
        texts: of all their captions.
        wanted: (N, J, D) what the level tokens should be, with (N,) bool where that is known.
        dropout: what is left out in training.
        times: the base's training timesteps.
        seed: of everything random.
        weighted: every class counts alike.
    """

    def __init__(
        self,
        pairs: Pairs,
        prepared: Prepared,
        texts: Texts,
        wanted: tuple[torch.Tensor, torch.Tensor],
        *,
        dropout: Dropout,
        times: int,
        seed: int,
        weighted: bool = False,
    ) -> None:
        self.prepared, self._texts, self._wanted = prepared, texts, wanted
        self.captions = [pairs.captions[i] for i in prepared.kept]
        self.labels = [pairs.labels[i] for i in prepared.kept]
        self._front = [front_alone(pairs.phrases[i]) for i in prepared.kept]
        self._dropout, self._times, self._seed = dropout, times, seed
        by_label = class_weights(self.labels) if weighted else {}
        self.weights = [by_label.get(label, 1.0) for label in self.labels]

    def __len__(self) -> int:
        return len(self.prepared)

    def __getitem__(self, where: int | tuple[int, int, int]) -> dict[str, Any]:
        if isinstance(where, tuple):
            epoch, draw, row = where
            return self._row(row, np.random.default_rng([self._seed, epoch, draw, row]))
        return self._fixed(where)

    def _row(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        texts = self.captions[row]
        text = texts[rng.integers(len(texts))]
        keep_text, keep_sound = self._dropout.draw(rng)
        square = int(rng.integers(self.prepared.latents.shape[1]))
        time = int(rng.integers(self._times))
        front = self._front[row]
        if front and rng.random() < self._dropout.behind:
            return self._item(row, rng, front, True, square, time, behind=True)
        return self._item(row, rng, text if keep_text else "", keep_sound, square, time)

    def _fixed(self, row: int) -> dict[str, Any]:
        """A row of an evaluation: times spread evenly over the rows, nothing left out."""
        rng = np.random.default_rng([self._seed, row])
        time = int((row + 0.5) / len(self) * self._times)
        return self._item(row, rng, self.captions[row][-1], True, 0, time)

    def _item(
        self,
        row: int,
        rng: np.random.Generator,
        text: str,
        keep: bool,
        square: int,
        time: int,
        behind: bool = False,
    ) -> dict[str, Any]:
        prepared, sound = self.prepared, int(self.prepared.sound[row])
        clean = prepared.latents[row, square].float()
        embeds, pooled = self._texts.of(text)
        item = {
            "clean": clean,
            "noise": torch.from_numpy(rng.standard_normal(clean.shape, np.float32)),
            "level": torch.from_numpy(rng.standard_normal((len(clean), 1, 1), np.float32)),
            "times": torch.tensor(time),
            "text": embeds,
            "tokens": prepared.tokens[sound].float(),
            "mask": prepared.mask[sound],
            "embeds": prepared.embeds[sound].float(),
            "keep": torch.tensor(keep),
            "behind": torch.tensor(behind),
            "weight": torch.tensor(self.weights[row]),
            "wanted": self._wanted[0][row].float(),
            "known": self._wanted[1][row],
        }
        return item if pooled is None else item | {"pooled": pooled}


def front_alone(phrases: Mapping[str, str] | None) -> str:
    """What is in front where something is behind it; "" where nothing is, or it is not known."""
    return phrases["foreground"] if phrases and phrases["background"] else ""


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch of `TrainingPairs`."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class Draws(Sampler):
    """The rows of an epoch as (epoch, draw, row), in an order that follows from seed and epoch.

    Args:
        labels: of all rows.
        seed: of the order.
        balanced: every class is drawn equally often, to within one: of a rare class each row
            comes several times, of a frequent one some rows wait for another epoch.
    """

    def __init__(self, labels: Sequence[str], seed: int, balanced: bool = False) -> None:
        self._labels, self._seed, self._balanced, self._epoch = list(labels), seed, balanced, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        rows = self._even(rng) if self._balanced else rng.permutation(len(self._labels))
        for draw, row in enumerate(rows):
            yield self._epoch, draw, int(row)

    def _even(self, rng: np.random.Generator) -> np.ndarray:
        names = np.asarray(self._labels)
        classes = rng.permutation(np.unique(names))
        counts = np.full(len(classes), len(names) // len(classes))
        counts[: len(names) % len(classes)] += 1
        found = []
        for name, count in zip(classes, counts, strict=True):
            members = np.flatnonzero(names == name)
            turns = -(-int(count) // len(members))
            found.append(np.concatenate([rng.permutation(members) for _ in range(turns)])[:count])
        return rng.permutation(np.concatenate(found))
