"""The features of a data set, computed once and kept: what training and evaluation read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple, overload

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from align.audio import AudioError
from align.cache import Cache, digest
from align.data import DataError
from align.fingerprint import recording_names, spread_rows, told_recordings
from align.listening import Ear
from align.store import Store, half
from align.unusable import Unusable

WORTH_WORKERS = 400  # rows below which starting workers takes longer than it saves
BLOCK_ROWS = 32


@dataclass
class Heard:
    """Recordings as features, with what is said of them.

    Attributes:
        features: a recording's windows, each (T, F) float16 or float32.
        captions: one a recording.
        labels: one a recording; those of one label say the same.
        recordings: where each came from: its path, or its row's number.
        key: what the features depend on; empty where that is not known.
    """

    features: Sequence[list[np.ndarray]]
    captions: list[str]
    labels: list[str]
    recordings: list[str]
    key: str = ""

    def __len__(self) -> int:
        return len(self.features)

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


class Answer(NamedTuple):
    """What came of a recording: its windows in half precision, or why there are none."""

    windows: list[np.ndarray]
    error: str = ""
    warning: str = ""


def listen(ear: Ear, recording: Any) -> Answer:
    """The features of a recording, or why it cannot be used; warnings are kept, not shown."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            windows = [half(window) for window in ear.features(recording)]
    except AudioError as error:
        return Answer([], " ".join(str(error).split()))
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return Answer(windows, "", " ".join(" ".join(texts).split()))


_JOB: list[tuple[Ear, Dataset]] = []  # of a worker process


def _begin(ear: Ear, rows: Dataset) -> None:
    _JOB[:] = [(ear, rows)]


def _listen_to_row(i: int) -> Answer:
    ear, rows = _JOB[0]
    return listen(ear, rows[i]["recording"])


def _answers(ear: Ear, rows: Dataset, start: int, workers: int) -> Iterator[Answer]:
    left = range(start, len(rows))
    if workers < 2 or len(left) < WORTH_WORKERS:
        yield from (listen(ear, rows[i]["recording"]) for i in left)
        return
    # Spawned, not forked: torch's threads do not survive a fork. Each worker reads its own rows,
    # so that no process ever holds all recordings.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(ear, rows)) as pool:
        try:
            yield from pool.map(_listen_to_row, left, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)


def hear(
    ear: Ear,
    rows: Dataset,
    *,
    workers: int = 1,
    title: str = "features",
    cache: Cache | None = None,
) -> Heard:
    """The features of every row, computed with progress or read from the cache.

    A recording that cannot be used is named, counted and left out.

    Args:
        ear: how the backbone hears.
        rows: with the columns recording, caption and label.
        workers: processes.
        title: what is said, and what the progress bar says.
        cache: where features are kept; in memory by default.

    Raises:
        DataError: more than 5% of the recordings, or all, cannot be used.
    """
    about = {
        "recordings": told_recordings(rows),
        "model_type": ear.model_type,
        "extractor": ear.extractor.to_dict(),
        "max_windows": ear.max_windows,
        "window_s": ear.window_s,
    }

    fresh: list[bool] = []

    def make(store: Store) -> None:
        fresh.append(True)
        try:
            _fill(store, ear, rows, workers, title)
        except DataError:
            store.discard()
            raise

    def size_bytes() -> float:
        sample = [listen(ear, rows[i]["recording"]).windows for i in spread_rows(len(rows))]
        sizes = [sum(window.nbytes for window in windows) for windows in sample]
        return len(rows) * sum(sizes) / len(sizes)

    store = (cache or Cache()).made("features", about, title, size_bytes, make)
    _tell(store, fresh)
    return _heard(store, rows, digest(about))


def _fill(store: Store, ear: Ear, rows: Dataset, workers: int, title: str) -> None:
    """Appends what the store lacks."""
    start, count = len(store), len(rows)
    bad = Unusable(count)
    for row, error in _noted(store, "errors"):
        bad.add(row, error)
    answers = _answers(ear, rows, start, workers)
    progress = tqdm(answers, title, count, initial=start, mininterval=1)
    block: list[Answer] = []
    for i, answer in enumerate(progress, start):
        if answer.error:
            bad.add(i, answer.error)
        block.append(answer)
        if len(block) == BLOCK_ROWS or i == count - 1:
            first = i + 1 - len(block)
            errors = {first + k: a.error for k, a in enumerate(block) if a.error}
            warned = {first + k: a.warning for k, a in enumerate(block) if a.warning}
            store.append([a.windows for a in block], errors=errors, warnings=warned)
            block = []
    if len(bad.said) == count:
        bad.check(0)


def _noted(store: Store, kind: str) -> list[tuple[int, str]]:
    """Errors or warnings by row, as the store's blocks note them."""
    found = (block["notes"].get(kind, {}) for block in store.blocks)
    return [(int(row), text) for notes in found for row, text in notes.items()]


def _tell(store: Store, fresh: Sequence[bool]) -> None:
    """Says once what was wrong with recordings: those left out unless it was said just now."""
    for row, error in [] if fresh else _noted(store, "errors"):
        print(f"left out: row {row + 1}: {error}")
    warned = _noted(store, "warnings")
    if warned:
        row, text = warned[0]
        print(
            f"{len(warned)} of {len(store)} recordings are damaged or not heard whole; the first: "
            f"row {row + 1}: {text}",
            flush=True,
        )


def _heard(store: Store, rows: Dataset, key: str) -> Heard:
    left_out = {row for row, _ in _noted(store, "errors")}
    said = rows.with_format(None)  # makes no sound
    captions, labels = list(said["caption"]), list(said["label"])
    names = recording_names(said)
    used = [i for i in range(len(store)) if i not in left_out]
    return Heard(
        Kept([(store, i) for i in used]),
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
