"""The features of a data set, computed once and kept: what training and evaluation read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from align.data.errors import DataError, Unusable
from align.models.processing import Ear
from align.preprocessing.cache import Cache, digest
from align.preprocessing.fingerprint import recording_names, spread_rows, told_recordings
from align.preprocessing.parallel import Answer, Listener, listen, read_rows
from align.preprocessing.store import Store

BLOCK_ROWS = 32


@dataclass
class Heard:
    """Rows of recordings as features, with what is said of them.

    Attributes:
        features: of each row, its recording's windows, each (T, F) float16 or float32.
        captions: one a row; a recording may have several rows.
        labels: one a row; those of one label say the same.
        recordings: where each row's recording came from: its clip, its path, or a row's number.
        key: what the features depend on; empty where that is not known.
    """

    features: Sequence[list[np.ndarray]]
    captions: list[str]
    labels: list[str]
    recordings: list[str]
    key: str = ""

    def __len__(self) -> int:
        return len(self.features)

    def sounds(self) -> tuple[Sequence[list[np.ndarray]], list[int]]:
        """The features of every recording once, and which of them each row has."""
        if isinstance(self.features, Kept):
            return self.features.distinct()
        return self.features, list(range(len(self)))

    def only(self, rows: Sequence[int]) -> Heard:
        """Some of these, in the order of `rows`."""
        return Heard(
            [self.features[i] for i in rows],
            [self.captions[i] for i in rows],
            [self.labels[i] for i in rows],
            [self.recordings[i] for i in rows],
        )


class Kept(Sequence[list[np.ndarray]]):
    """Some rows of some stores, read when they are asked for, as float32."""

    def __init__(self, places: list[tuple[Store, int]]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, row: int) -> list[np.ndarray]: ...
    @overload
    def __getitem__(self, row: slice) -> list[list[np.ndarray]]: ...
    def __getitem__(self, row: int | slice) -> list[np.ndarray] | list[list[np.ndarray]]:
        """A row's windows."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        store, at = self.places[row]
        return [np.asarray(window, np.float32) for window in store[at]]

    def distinct(self) -> tuple[Kept, list[int]]:
        """Every place once, in the order of the first rows, and which of them each row has."""
        number: dict[tuple[int, int], int] = {}
        which = [number.setdefault((id(store), at), len(number)) for store, at in self.places]
        first = dict(zip(reversed(which), reversed(self.places), strict=True))
        return Kept([first[i] for i in range(len(number))]), which


def hear(
    ear: Ear,
    rows: Dataset,
    *,
    workers: int = 1,
    title: str = "features",
    cache: Cache | None = None,
) -> Heard:
    """The features of every row, computed with progress or read from the cache.

    A recording that stands in several rows, with a caption each, is heard once. One that cannot
    be used is named, counted and left out.

    Args:
        ear: how the backbone hears.
        rows: with the columns recording, caption and label; and clip, where that names recordings.
        workers: processes.
        title: what is said, and what the progress bar says.
        cache: where features are kept; in memory by default.

    Raises:
        DataError: more than 5% of the recordings, or all, cannot be used.
    """
    names = recording_names(rows.with_format(None))  # which makes no sound
    first = {name: i for i, name in reversed(list(enumerate(names)))}
    firsts = sorted(first.values())
    called = _numbers(rows, firsts)
    sounds = rows if len(firsts) == len(rows) else rows.select(firsts)
    about = {
        "recordings": told_recordings(sounds),
        "model_type": ear.model_type,
        "extractor": ear.extractor.to_dict(),
        "max_windows": ear.max_windows,
        "window_s": ear.window_s,
    }

    fresh: list[bool] = []

    def make(store: Store) -> None:
        fresh.append(True)
        try:
            _fill(store, ear, sounds, called, workers, title)
        except DataError:
            store.discard()
            raise

    def size_bytes() -> float:
        sample = [listen(ear, sounds[i]["recording"]).windows for i in spread_rows(len(sounds))]
        sizes = [sum(window.nbytes for window in windows) for windows in sample]
        return len(sounds) * sum(sizes) / len(sizes)

    store = (cache or Cache()).made("features", about, title, size_bytes, make)
    _tell(store, called, fresh)
    place = {names[row]: at for at, row in enumerate(firsts)}
    return _heard(store, rows, names, [place[name] for name in names], digest(about))


def _numbers(rows: Dataset, firsts: Sequence[int]) -> list[int]:
    """What rows are called, from one on: as in the table that they were chosen from."""
    if "row" not in rows.column_names:
        return [i + 1 for i in firsts]
    numbers = list(rows.with_format(None)["row"])
    return [numbers[i] for i in firsts]


def _fill(
    store: Store, ear: Ear, sounds: Dataset, called: Sequence[int], workers: int, title: str
) -> None:
    """Appends what the store lacks; recordings are called by the first rows that have them."""
    start, count = len(store), len(sounds)
    bad = Unusable(count)
    for i, error in _noted(store, "errors"):
        bad.add(called[i] - 1, error)
    found = read_rows(Listener(ear, sounds), count, start, workers)
    progress = tqdm(found, title, count, initial=start, mininterval=1)
    block: list[Answer] = []
    for i, answer in enumerate(progress, start):
        if answer.error:
            bad.add(called[i] - 1, answer.error)
        block.append(answer)
        if len(block) == BLOCK_ROWS or i == count - 1:
            begun = i + 1 - len(block)
            errors = {begun + k: a.error for k, a in enumerate(block) if a.error}
            warned = {begun + k: a.warning for k, a in enumerate(block) if a.warning}
            store.append([a.windows for a in block], errors=errors, warnings=warned)
            block = []
    if len(bad.said) == count:
        bad.check(0)


def _noted(store: Store, kind: str) -> list[tuple[int, str]]:
    """Errors or warnings by recording, as the store's blocks note them."""
    found = (block["notes"].get(kind, {}) for block in store.blocks)
    return [(int(i), text) for notes in found for i, text in notes.items()]


def _tell(store: Store, called: Sequence[int], fresh: Sequence[bool]) -> None:
    """Says once what was wrong with recordings: those left out unless it was said just now."""
    for i, error in [] if fresh else _noted(store, "errors"):
        print(f"left out: row {called[i]}: {error}")
    warned = _noted(store, "warnings")
    if warned:
        i, text = warned[0]
        print(
            f"{len(warned)} of {len(store)} recordings are damaged or not heard whole; the first: "
            f"row {called[i]}: {text}",
            flush=True,
        )


def _heard(store: Store, rows: Dataset, names: list[str], places: Sequence[int], key: str) -> Heard:
    left_out = {i for i, _ in _noted(store, "errors")}
    said = rows.with_format(None)  # makes no sound
    captions, labels = list(said["caption"]), list(said["label"])
    used = [row for row, place in enumerate(places) if place not in left_out]
    return Heard(
        Kept([(store, places[i]) for i in used]),
        [captions[i] for i in used],
        [labels[i] for i in used],
        [names[i] for i in used],
        key,
    )


def joined(first: Heard, second: Heard) -> Heard:
    """The rows of both."""
    parts = (first.features, second.features)
    features: Sequence[list[np.ndarray]]
    if all(isinstance(part, Kept) for part in parts):
        features = Kept([place for part in parts for place in part.places])  # type: ignore[attr-defined]
    else:
        features = [*first.features, *second.features]
    return Heard(
        features,
        first.captions + second.captions,
        first.labels + second.labels,
        first.recordings + second.recordings,
        digest([first.key, second.key]) if first.key and second.key else "",
    )
