"""Extract the features of a dataset once, for training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from align.data.errors import DataError, ErrorBudget
from align.models.processing import AudioProcessor
from align.preprocessing.cache import Cache, digest
from align.preprocessing.fingerprint import audio_fingerprint, clip_names, probe_rows
from align.preprocessing.parallel import ClipExtractor, ExtractionResult, extract_one, read_rows
from align.preprocessing.store import Store

BLOCK_ROWS = 32


@dataclass
class AudioFeatures:
    """Features of a dataset's rows, with their captions and labels.

    Attributes:
        features: Windows of each row, each of shape (T, F), float16 or float32.
        captions: Caption of each row; a clip may have several rows.
        labels: Label of each row; rows with the same label are positives of each other.
        clip_ids: Identifies the clip of each row: clip name, path or row number.
        fingerprint: Digest of all inputs of the features; empty if unknown.
    """

    features: Sequence[list[np.ndarray]]
    captions: list[str]
    labels: list[str]
    clip_ids: list[str]
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.features)

    def unique_clips(self) -> tuple[Sequence[list[np.ndarray]], list[int]]:
        """Return the features of every distinct clip, and the index of each row's clip."""
        if isinstance(self.features, StoredFeatures):
            return self.features.unique()
        return self.features, list(range(len(self)))

    def select(self, rows: Sequence[int]) -> AudioFeatures:
        """Select rows by index."""
        return AudioFeatures(
            [self.features[i] for i in rows],
            [self.captions[i] for i in rows],
            [self.labels[i] for i in rows],
            [self.clip_ids[i] for i in rows],
        )


class StoredFeatures(Sequence[list[np.ndarray]]):
    """Rows of one or several stores, read on access as float32.

    Args:
        locations: Store and index in it, for each row.
    """

    def __init__(self, locations: list[tuple[Store, int]]) -> None:
        self.locations = locations

    def __len__(self) -> int:
        return len(self.locations)

    @overload
    def __getitem__(self, row: int) -> list[np.ndarray]: ...
    @overload
    def __getitem__(self, row: slice) -> list[list[np.ndarray]]: ...
    def __getitem__(self, row: int | slice) -> list[np.ndarray] | list[list[np.ndarray]]:
        """Return the windows of a row."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        store, at = self.locations[row]
        return [np.asarray(window, np.float32) for window in store[at]]

    def unique(self) -> tuple[StoredFeatures, list[int]]:
        """Return the distinct locations in order of first use, and the index of each row's."""
        number: dict[tuple[int, int], int] = {}
        which = [number.setdefault((id(store), at), len(number)) for store, at in self.locations]
        first = dict(zip(reversed(which), reversed(self.locations), strict=True))
        return StoredFeatures([first[i] for i in range(len(number))]), which


def extract_features(
    processor: AudioProcessor,
    rows: Dataset,
    *,
    num_workers: int = 1,
    title: str = "features",
    cache: Cache | None = None,
) -> AudioFeatures:
    """Extract the features of every row, or read them from the cache.

    Features of a clip with several rows are extracted once. Unusable clips are reported and
    skipped.

    Args:
        processor: Audio processor of the encoder.
        rows: Rows with the columns audio, caption and label, and optionally clip.
        num_workers: Number of feature-extraction processes.
        title: Title of messages and of the progress bar.
        cache: Cache for the features; they stay in memory by default.

    Raises:
        DataError: If more than 5% of the clips, or all, are unusable.
    """
    names = clip_names(rows.with_format(None))  # skips transforms that synthesize audio
    first = {name: i for i, name in reversed(list(enumerate(names)))}
    firsts = sorted(first.values())
    row_numbers = _row_numbers(rows, firsts)
    clips = rows if len(firsts) == len(rows) else rows.select(firsts)
    key = {
        "audio": audio_fingerprint(clips),
        "model_type": processor.model_type,
        "feature_extractor": processor.feature_extractor.to_dict(),
        "max_windows": processor.max_windows,
        "window_s": processor.window_s,
    }

    created: list[bool] = []

    def create(store: Store) -> None:
        created.append(True)
        try:
            _extract_missing(store, processor, clips, row_numbers, num_workers, title)
        except DataError:
            store.discard()
            raise

    def estimate_bytes() -> float:
        sample = [extract_one(processor, clips[i]["audio"]).windows for i in probe_rows(len(clips))]
        sizes = [sum(window.nbytes for window in windows) for windows in sample]
        return len(clips) * sum(sizes) / len(sizes)

    store = (cache or Cache()).get_or_create("features", key, title, estimate_bytes, create)
    _report_problems(store, row_numbers, created)
    place = {names[row]: at for at, row in enumerate(firsts)}
    return _collect_rows(store, rows, names, [place[name] for name in names], digest(key))


def _row_numbers(rows: Dataset, firsts: Sequence[int]) -> list[int]:
    """Return the numbers of rows in their source table, from 1, for messages."""
    if "row" not in rows.column_names:
        return [i + 1 for i in firsts]
    numbers = list(rows.with_format(None)["row"])
    return [numbers[i] for i in firsts]


def _extract_missing(
    store: Store,
    processor: AudioProcessor,
    clips: Dataset,
    row_numbers: Sequence[int],
    num_workers: int,
    title: str,
) -> None:
    """Append the missing clips to the store; messages name each clip's first row."""
    start, count = len(store), len(clips)
    budget = ErrorBudget(count)
    for i, error in _read_notes(store, "errors"):
        budget.add(row_numbers[i] - 1, error)
    found = read_rows(ClipExtractor(processor, clips), count, start, num_workers)
    progress = tqdm(found, title, count, initial=start, mininterval=1)
    block: list[ExtractionResult] = []
    for i, result in enumerate(progress, start):
        if result.error:
            budget.add(row_numbers[i] - 1, result.error)
        block.append(result)
        if len(block) == BLOCK_ROWS or i == count - 1:
            first_row = i + 1 - len(block)
            errors = {first_row + k: a.error for k, a in enumerate(block) if a.error}
            warnings = {first_row + k: a.warning for k, a in enumerate(block) if a.warning}
            store.append([a.windows for a in block], errors=errors, warnings=warnings)
            block = []
    if len(budget.errors) == count:
        budget.check(0)


def _read_notes(store: Store, kind: str) -> list[tuple[int, str]]:
    """Return the errors or warnings stored with the blocks, by clip index."""
    found = (block["notes"].get(kind, {}) for block in store.blocks)
    return [(int(i), text) for notes in found for i, text in notes.items()]


def _report_problems(store: Store, row_numbers: Sequence[int], created: Sequence[bool]) -> None:
    """Report skipped clips, unless extraction just did, and the number of warnings."""
    for i, error in [] if created else _read_notes(store, "errors"):
        print(f"skipped: row {row_numbers[i]}: {error}")
    warnings = _read_notes(store, "warnings")
    if warnings:
        i, text = warnings[0]
        print(
            f"{len(warnings)} of {len(store)} clips are damaged or were truncated; the first: "
            f"row {row_numbers[i]}: {text}",
            flush=True,
        )


def _collect_rows(
    store: Store, rows: Dataset, names: list[str], locations: Sequence[int], fingerprint: str
) -> AudioFeatures:
    excluded = {i for i, _ in _read_notes(store, "errors")}
    undecoded = rows.with_format(None)  # skips transforms that synthesize audio
    captions, labels = list(undecoded["caption"]), list(undecoded["label"])
    used = [row for row, place in enumerate(locations) if place not in excluded]
    return AudioFeatures(
        StoredFeatures([(store, locations[i]) for i in used]),
        [captions[i] for i in used],
        [labels[i] for i in used],
        [names[i] for i in used],
        fingerprint,
    )


def concatenate_features(first: AudioFeatures, second: AudioFeatures) -> AudioFeatures:
    """Concatenate the rows of two sets of features."""
    parts = (first.features, second.features)
    features: Sequence[list[np.ndarray]]
    if all(isinstance(part, StoredFeatures) for part in parts):
        features = StoredFeatures([place for part in parts for place in part.locations])  # type: ignore[attr-defined]
    else:
        features = [*first.features, *second.features]
    return AudioFeatures(
        features,
        first.captions + second.captions,
        first.labels + second.labels,
        first.clip_ids + second.clip_ids,
        digest([first.fingerprint, second.fingerprint])
        if first.fingerprint and second.fingerprint
        else "",
    )
