"""Recordings heard by one process or by several: the same answers in the same order."""

from __future__ import annotations

import signal
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from datasets import Dataset
from threadpoolctl import threadpool_limits

from align.audio.files import AudioError
from align.models.processing import Ear
from align.preprocessing.store import half

WORTH_WORKERS = 400  # rows below which starting workers takes longer than it saves
AHEAD = 4  # recordings in work for each worker
Beside = TypeVar("Beside")


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


def one_thread() -> None:
    """Has this process compute by one thread: workers are as many as there are cores for them."""
    threadpool_limits(1)


class RowReader(Protocol):
    """What reads the rows of a data set; it is sent to each worker process once."""

    def read(self, i: int) -> Any:
        """What comes of row i."""
        ...


@dataclass
class Listener:
    """Extracts the features of recordings, those of a data set's rows among them."""

    ear: Ear
    rows: Dataset | None = None

    def read(self, i: int) -> Answer:
        """What comes of row i's recording."""
        assert self.rows is not None
        return listen(self.ear, self.rows[i]["recording"])


_READER: list[Any] = []  # of a worker process


def _begin(reader: Any) -> None:
    # Ctrl-C reaches every process: who started them ends them, and says so once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread()
    _READER[:] = [reader]


def _read(i: int) -> Any:
    return _READER[0].read(i)


def _listen_to(recording: Any) -> Answer:
    return listen(_READER[0].ear, recording)


def _pool(workers: int, reader: Any) -> ProcessPoolExecutor:
    # Spawned, not forked: torch's threads do not survive a fork.
    return ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin, initargs=(reader,)
    )


def read_rows(
    reader: RowReader, count: int, start: int, workers: int, *, worth: int = WORTH_WORKERS
) -> Iterator[Any]:
    """What comes of the rows of a data set from a row on, in order.

    Args:
        reader: reads a row; each worker reads its own, so that no process ever holds all of them.
        count: rows in all.
        start: the first row.
        workers: processes; few rows are read by this one.
        worth: the number of rows below which starting workers takes longer than it saves.
    """
    left = range(start, count)
    if workers < 2 or len(left) < worth:
        yield from map(reader.read, left)
        return
    # Who takes the answers may compute meanwhile, on the cores that are left.
    cores = max(1, torch.get_num_threads() - workers)
    with threadpool_limits(cores), _pool(workers, reader) as pool:
        try:
            yield from pool.map(_read, left, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)


class Listeners:
    """Processes that hear recordings as they come; started when they are first asked, and kept.

    Args:
        ear: how the backbone hears; told to each process once.
        workers: processes; below 2 this one hears.
    """

    def __init__(self, ear: Ear, workers: int) -> None:
        self._ear, self._workers = ear, workers
        self._pool: ProcessPoolExecutor | None = None

    def answers(self, recordings: Iterable[tuple[Any, Beside]]) -> Iterator[tuple[Answer, Beside]]:
        """Each recording's answer and what came beside it, in their order.

        Only a few recordings are asked for ahead of what was answered.
        """
        if self._workers < 2:
            yield from ((listen(self._ear, recording), beside) for recording, beside in recordings)
            return
        self._pool = self._pool or _pool(self._workers, Listener(self._ear))
        waiting: deque[tuple[Future[Answer], Beside]] = deque()
        try:
            for recording, beside in recordings:
                waiting.append((self._pool.submit(_listen_to, recording), beside))
                if len(waiting) > AHEAD * self._workers:
                    answer, first = waiting.popleft()
                    yield answer.result(), first
            while waiting:
                answer, first = waiting.popleft()
                yield answer.result(), first
        finally:
            for answer, _ in waiting:
                answer.cancel()
