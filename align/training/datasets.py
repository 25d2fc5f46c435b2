"""Datasets and sampler of training: audio features or tokens, targets and groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler

from align.config.arguments import AugmentArguments
from align.data.errors import ErrorBudget
from align.data.streaming import Stream
from align.models.processing import AudioProcessor, pad
from align.preprocessing.features import AudioFeatures
from align.preprocessing.parallel import MIN_ROWS_FOR_WORKERS, ExtractionPool, ExtractionResult
from align.training.augmentation import FeatureLayout, augment


@dataclass(frozen=True)
class ExtraRows:
    """Rows of a second dataset, which follow those of the first.

    Attributes:
        start: Index of the first extra row.
        fraction: Fraction of each epoch that is sampled from the extra rows.
    """

    start: int
    fraction: float

    @property
    def num_sampled(self) -> int:
        """Number of extra rows per epoch, in addition to all rows of the first dataset."""
        return round(self.start * self.fraction / (1 - self.fraction))

    def __post_init__(self) -> None:
        if not self.num_sampled:
            raise ValueError(
                f"a fraction of {self.fraction} with {self.start} rows is less than one row"
            )


class FeatureDataset(Dataset):
    """Map-style dataset of audio features, indexed by (epoch, row).

    The index seeds the augmentation, so that a resumed run has the same batches as an uninterrupted
    one.

    Args:
        audio_features: Features of N clips.
        targets: Index of each row's target embeds, shape (N,).
        augmentation: Augmentation options, or None for evaluation.
        layout: Layout of the features, for the augmentation.
        seed: Seed of the augmentation.
        caption_lengths: N caption lengths to sort every epoch by.
        extra: Rows of which each epoch has a sample only.
    """

    def __init__(
        self,
        audio_features: AudioFeatures,
        targets: torch.Tensor,
        augmentation: AugmentArguments | None = None,
        layout: FeatureLayout | None = None,
        seed: int = 0,
        caption_lengths: Sequence[int] | None = None,
        extra: ExtraRows | None = None,
    ) -> None:
        self.audio_features, self.targets = audio_features, targets
        self._augmentation = augmentation if augmentation and augmentation.active else None
        self._layout, self._seed = layout, seed
        self.caption_lengths, self.extra = caption_lengths, extra
        self.groups = group_ids(audio_features.labels)
        # Rows sorted by group, and the boundaries between the groups.
        self._sorted = np.argsort(self.groups, kind="stable")
        self._edges = np.concatenate([[0], np.cumsum(np.bincount(self.groups))])

    def __len__(self) -> int:
        return len(self.audio_features)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        epoch, row = index if isinstance(index, tuple) else (0, index)
        windows = self.audio_features.features[row]
        if self._augmentation is not None:
            rng = np.random.default_rng([self._seed, epoch, row])
            windows = [self._augment(window, row, rng) for window in windows]
        return {"windows": windows, "target": self.targets[row], "group": self.groups[row]}

    def _augment(self, window: np.ndarray, row: int, rng: np.random.Generator) -> np.ndarray:
        assert self._augmentation is not None and self._layout is not None
        start, end = self._edges[self.groups[row] : self.groups[row] + 2]
        same = self._random_window(int(rng.integers(start, end)), rng)
        others = len(self._sorted) - (end - start)
        other = None
        if others:
            position = int(rng.integers(others))  # among the rows of all other groups
            other = self._random_window(
                position if position < start else position + (end - start), rng
            )
        return augment(window, self._augmentation, self._layout, rng, same, other)

    def _random_window(self, position: int, rng: np.random.Generator) -> np.ndarray:
        windows = self.audio_features.features[int(self._sorted[position])]
        return windows[rng.integers(len(windows))]


class TokenDataset(Dataset):
    """Dataset of precomputed audio tokens, for a frozen backbone.

    Args:
        rows: N pairs of tokens (S, H) and their mask (S,), arrays or tensors of any precision, as
            `align.preprocessing.audio_tokens.frozen_tokens` returns them. S may differ.
        targets: Index of each row's target embeds, shape (N,).
        groups: Group id of each row; rows with the same label are in one group.
        caption_lengths: N caption lengths to sort every epoch by.
        extra: Rows of which each epoch has a sample only.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[Any]],
        targets: torch.Tensor,
        groups: list[int],
        caption_lengths: Sequence[int] | None = None,
        extra: ExtraRows | None = None,
    ) -> None:
        self._rows, self.targets, self.groups = rows, targets, groups
        self.caption_lengths, self.extra = caption_lengths, extra

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        row = index[1] if isinstance(index, tuple) else index
        tokens, mask = self._rows[row]
        return {
            "tokens": torch.as_tensor(tokens),
            "tokens_mask": torch.as_tensor(mask),
            "target": self.targets[row],
            "group": self.groups[row],
        }


def group_ids(labels: Sequence[str]) -> list[int]:
    """Return the index of each label among the sorted distinct labels."""
    number = {label: i for i, label in enumerate(sorted(set(labels)))}
    return [number[label] for label in labels]


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Collate rows of a `FeatureDataset` or a `TokenDataset` to padded tensors and masks."""
    batch = {
        "target": torch.stack([row["target"] for row in rows]),
        "group": torch.tensor([row["group"] for row in rows]),
    }
    if "windows" in rows[0]:
        return batch | pad([row["windows"] for row in rows])
    tokens, masks = [row["tokens"] for row in rows], [row["tokens_mask"] for row in rows]
    max_tokens = max(len(row_tokens) for row_tokens in tokens)
    batch["tokens"] = torch.zeros(len(rows), max_tokens, tokens[0].shape[1])
    batch["tokens_mask"] = torch.zeros(len(rows), max_tokens, dtype=torch.bool)
    for b, (row_tokens, mask) in enumerate(zip(tokens, masks, strict=True)):
        batch["tokens"][b, : len(row_tokens)] = row_tokens  # converts to float32
        batch["tokens_mask"][b, : len(mask)] = mask
    return batch


class EpochSampler(Sampler):
    """Sampler of (epoch, row), in an order that depends on the seed and the epoch only.

    The order is random. With `caption_lengths`, rows are sorted by length and shuffled among equal
    lengths. Each epoch has a new sample of the `extra` rows, which repeats a row only after all
    others.

    Args:
        rows: Dataset, with optional attributes `caption_lengths` and `extra`.
        seed: Seed of the order.
    """

    def __init__(self, rows: Sized, seed: int) -> None:
        self._rows, self._seed, self._epoch = rows, seed, 0
        self._extra_rows: ExtraRows | None = getattr(rows, "extra", None)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer calls it before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        extra = self._extra_rows
        return len(self._rows) if extra is None else extra.start + extra.num_sampled

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        order = rng.permutation(self._epoch_rows(rng))
        lengths = getattr(self._rows, "caption_lengths", None)
        if lengths is not None:
            order = order[np.argsort(np.asarray(lengths)[order], kind="stable")]
        for row in order:
            yield self._epoch, int(row)

    def _epoch_rows(self, rng: np.random.Generator) -> np.ndarray:
        every, extra = np.arange(len(self._rows)), self._extra_rows
        if extra is None:
            return every
        others = every[extra.start :]
        whole, rest = divmod(extra.num_sampled, len(others))
        sampled = [*[others] * whole, rng.choice(others, rest, replace=False)]
        return np.concatenate([every[: extra.start], *sampled])


class StreamingFeatureDataset(IterableDataset):
    """Iterable dataset that extracts features on the fly, without caching.

    Unreadable clips are replaced by the previous one, so that the epoch length is constant and a
    run can resume. Order and augmentation depend on the seed, the epoch and the position only.

    Args:
        processor: Processor of the backbone.
        stream: N rows.
        targets: Index of each row's target embeds, shape (N,).
        groups: Group id of each row.
        augmentation: Augmentation options. Mixing is not supported.
        layout: Layout of the features, for the augmentation.
        seed: Seed of order and augmentation.
        num_workers: Number of feature-extraction processes. Few rows are extracted in this one.
    """

    def __init__(
        self,
        processor: AudioProcessor,
        stream: Stream,
        targets: torch.Tensor,
        groups: Sequence[int],
        augmentation: AugmentArguments,
        layout: FeatureLayout,
        seed: int,
        num_workers: int = 1,
    ) -> None:
        self._stream, self._seed = stream, seed
        self._augmentation, self._layout = augmentation, layout
        texts = zip(stream.captions, stream.labels, strict=True)
        row_targets = zip(targets, groups, strict=True)
        self._row_targets = dict(zip(texts, row_targets, strict=True))
        self._pool = ExtractionPool(
            processor, num_workers if len(stream) >= MIN_ROWS_FOR_WORKERS else 1
        )
        self._epoch = 0
        self._warned = False

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer calls it before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of an epoch.

        Raises:
            DataError: If more than 5% of the clips cannot be used.
        """
        budget = ErrorBudget(len(self), row_name="the stream's number")
        pending, last, warned = 0, None, []
        for place, (result, text) in enumerate(self._results()):
            if result.error:
                budget.add(place, result.error)
                pending += 1
            else:
                warned += [result.warning] if result.warning else []
                target, group = self._row_targets[text]
                windows = self._augment(result.windows, place)
                last = {"windows": windows, "target": target, "group": group}
            if last is None:
                continue
            # Unreadable clips before the first readable one are replaced by that one.
            for _ in range(pending + (not result.error)):
                yield last
            pending = 0
        if last is None:
            budget.check(0)
        if warned and not self._warned:
            self._warned = True
            print(f"{len(warned)} clips are damaged or truncated: {warned[0]}")

    def _augment(self, windows: list[np.ndarray], place: int) -> list[np.ndarray]:
        windows = [np.asarray(window, np.float32) for window in windows]
        if not self._augmentation.active:
            return windows
        rng = np.random.default_rng([self._seed, self._epoch, place])
        return [augment(window, self._augmentation, self._layout, rng) for window in windows]

    def _results(self) -> Iterator[tuple[ExtractionResult, tuple[str, str]]]:
        rows = self._stream.iterate(self._seed, self._epoch)
        return self._pool.map((audio, (caption, label)) for audio, caption, label in rows)
