"""Recordings heard by one process or by several: the same answers in the same order."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from align.audio import AudioError
from align.listening import Ear
from align.store import half

WORTH_WORKERS = 400  # rows below which starting workers takes longer than it saves


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


def answers(ear: Ear, rows: Dataset, start: int, workers: int) -> Iterator[Answer]:
    """What comes of the recordings of a data set from a row on, in order.

    Args:
        ear: how the backbone hears.
        rows: with the column recording.
        start: the first row.
        workers: processes; few rows are heard by this one.
    """
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
