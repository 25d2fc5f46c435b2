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

from diffuse.data.pairs import AudioImagePairs
from diffuse.data.preprocessing import PreprocessedPairs
from diffuse.data.text_embeds import TextEmbeds
from diffuse.training.losses import class_weights


@dataclass(frozen=True)
class ConditioningDropout:
    """Shares of rows that go without their text, in silence, or both.

    Attributes:
        caption: of all rows, without their text alone.
        sound: of all rows, in silence alone.
        joint: of all rows, without both.
        behind: of the rows with a background: without it in the text, and without the foreground
            in the sound. So a UNet learns to put what is heard behind what is said.
    """

    caption: float = 0.0
    audio: float = 0.0
    joint: float = 0.0
    background: float = 0.0

    def sample(self, rng: np.random.Generator) -> tuple[bool, bool]:
        """Whether a row keeps its text, and whether it keeps its sound."""
        u = rng.random()
        if u < self.joint:
            return False, False
        if u < self.joint + self.caption:
            return False, True
        return True, u >= self.joint + self.caption + self.audio


class AudioImageDataset(Dataset):
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
        pairs: AudioImagePairs,
        prepared: PreprocessedPairs,
        texts: TextEmbeds,
        target_tokens: tuple[torch.Tensor, torch.Tensor],
        *,
        dropout: ConditioningDropout,
        num_train_timesteps: int,
        seed: int,
        class_weighted: bool = False,
    ) -> None:
        self.prepared, self._texts, self._target_tokens = prepared, texts, target_tokens
        self.captions = [pairs.captions[i] for i in prepared.kept]
        self.labels = [pairs.labels[i] for i in prepared.kept]
        self._foreground_phrases = [foreground_phrase(pairs.phrases[i]) for i in prepared.kept]
        self._dropout, self._num_train_timesteps, self._seed = dropout, num_train_timesteps, seed
        by_label = class_weights(self.labels) if class_weighted else {}
        self.weights = [by_label.get(label, 1.0) for label in self.labels]

    def __len__(self) -> int:
        return len(self.prepared)

    def __getitem__(self, where: int | tuple[int, int, int]) -> dict[str, Any]:
        if isinstance(where, tuple):
            epoch, position, row = where
            return self._train_item(row, np.random.default_rng([self._seed, epoch, position, row]))
        return self._eval_item(where)

    def _train_item(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        texts = self.captions[row]
        text = texts[rng.integers(len(texts))]
        keep_text, keep_audio = self._dropout.sample(rng)
        crop = int(rng.integers(self.prepared.latents.shape[1]))
        timestep = int(rng.integers(self._num_train_timesteps))
        foreground = self._foreground_phrases[row]
        if foreground and rng.random() < self._dropout.background:
            return self._item(row, rng, foreground, True, crop, timestep, background_only=True)
        return self._item(row, rng, text if keep_text else "", keep_audio, crop, timestep)

    def _eval_item(self, row: int) -> dict[str, Any]:
        """A row of an evaluation: times spread evenly over the rows, nothing left out."""
        rng = np.random.default_rng([self._seed, row])
        timestep = int((row + 0.5) / len(self) * self._num_train_timesteps)
        return self._item(row, rng, self.captions[row][-1], True, 0, timestep)

    def _item(
        self,
        row: int,
        rng: np.random.Generator,
        text: str,
        keep_audio: bool,
        crop: int,
        timestep: int,
        background_only: bool = False,
    ) -> dict[str, Any]:
        prepared, audio_index = self.prepared, int(self.prepared.audio_index[row])
        latents = prepared.latents[row, crop].float()
        embeds, pooled = self._texts.get(text)
        item = {
            "latents": latents,
            "noise": torch.from_numpy(rng.standard_normal(latents.shape, np.float32)),
            "offset_noise": torch.from_numpy(rng.standard_normal((len(latents), 1, 1), np.float32)),
            "timesteps": torch.tensor(timestep),
            "prompt_embeds": embeds,
            "tokens": prepared.tokens[audio_index].float(),
            "mask": prepared.mask[audio_index],
            "embeds": prepared.embeds[audio_index].float(),
            "keep_audio": torch.tensor(keep_audio),
            "background_only": torch.tensor(background_only),
            "loss_weight": torch.tensor(self.weights[row]),
            "target_tokens": self._target_tokens[0][row].float(),
            "has_target": self._target_tokens[1][row],
        }
        return item if pooled is None else item | {"pooled_prompt_embeds": pooled}


def foreground_phrase(phrases: Mapping[str, str] | None) -> str:
    """What is in front where something is behind it; "" where nothing is, or it is not known."""
    return phrases["foreground"] if phrases and phrases["background"] else ""


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch of `AudioImageDataset`."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class BalancedSampler(Sampler):
    """The rows of an epoch as (epoch, draw, row), in an order that follows from seed and epoch.

    Args:
        labels: of all rows.
        seed: of the order.
        balanced: every class is drawn equally often, to within one: of a rare class each row
            comes several times, of a frequent one some rows wait for another epoch.
    """

    def __init__(self, labels: Sequence[str], seed: int, class_balanced: bool = False) -> None:
        self._labels, self._seed, self._class_balanced, self._epoch = (
            list(labels),
            seed,
            class_balanced,
            0,
        )

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        rows = (
            self._balanced_order(rng)
            if self._class_balanced
            else rng.permutation(len(self._labels))
        )
        for position, row in enumerate(rows):
            yield self._epoch, position, int(row)

    def _balanced_order(self, rng: np.random.Generator) -> np.ndarray:
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
