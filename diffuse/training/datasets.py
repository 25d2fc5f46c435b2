"""Training items of audio-image pairs.

All randomness is a function of the item's position, so a resumed run gets the same items as an
uninterrupted one.
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
    """Probabilities of dropping conditions during training.

    Attributes:
        caption: Probability of dropping only the caption.
        audio: Probability of dropping only the audio.
        joint: Probability of dropping both.
        background: For rows with a background: probability of using the foreground's phrase as the
            caption and only the background of the audio, so that the UNet learns to combine a
            prompt with background audio.
    """

    caption: float = 0.0
    audio: float = 0.0
    joint: float = 0.0
    background: float = 0.0

    def sample(self, rng: np.random.Generator) -> tuple[bool, bool]:
        """Sample whether a row keeps its caption and whether it keeps its audio.

        Args:
            rng: Random generator.

        Returns:
            Whether the caption is kept, and whether the audio is kept.
        """
        u = rng.random()
        if u < self.joint:
            return False, False
        if u < self.joint + self.caption:
            return False, True
        return True, u >= self.joint + self.caption + self.audio


class AudioImageDataset(Dataset):
    """Map-style dataset indexed by (epoch, position, row) in training and by row in evaluation.

    Args:
        pairs: Pairs with captions and labels.
        prepared: Preprocessed tensors of the pairs.
        texts: Text embeds of all captions.
        target_tokens: Target level tokens (N, J, D), and a mask (N,) of the rows that have any.
        dropout: Probabilities of dropping conditions in training.
        num_train_timesteps: Number of training timesteps of the base model.
        seed: Random seed.
        class_weighted: Weight the loss inversely to class frequency.
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

    def __getitem__(self, index: int | tuple[int, int, int]) -> dict[str, Any]:
        if isinstance(index, tuple):
            epoch, position, row = index
            return self._train_item(row, np.random.default_rng([self._seed, epoch, position, row]))
        return self._eval_item(index)

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
        """Return a row for evaluation: timesteps evenly spread over the rows, no dropout."""
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
    """Return the foreground's phrase of a row with a background, otherwise "".

    Args:
        phrases: Phrases by level, or None if they are unknown.
    """
    return phrases["foreground"] if phrases and phrases["background"] else ""


def collate(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack items of `AudioImageDataset` to a batch.

    Args:
        rows: The items.
    """
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class BalancedSampler(Sampler):
    """Yields the rows of an epoch as (epoch, position, row) in an order given by seed and epoch.

    Args:
        labels: Labels of all rows.
        seed: Random seed.
        class_balanced: Sample all classes equally often, up to one row: rows of rare classes are
            repeated, some rows of frequent classes are left out of the epoch.
    """

    def __init__(self, labels: Sequence[str], seed: int, class_balanced: bool = False) -> None:
        self._labels, self._seed, self._epoch = list(labels), seed, 0
        self._class_balanced = class_balanced

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer calls this before each one.

        Args:
            epoch: Index of the epoch.
        """
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
            repeats = -(-int(count) // len(members))
            order = np.concatenate([rng.permutation(members) for _ in range(repeats)])
            found.append(order[:count])
        return rng.permutation(np.concatenate(found))
