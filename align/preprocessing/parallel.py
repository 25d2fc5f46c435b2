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
from align.models.processing import AudioProcessor
from align.preprocessing.store import to_half

MIN_ROWS_FOR_WORKERS = 400  # rows below which starting workers takes longer than it saves
PREFETCH_FACTOR = 4  # recordings in work for each worker
Payload = TypeVar("Payload")


class ExtractionResult(NamedTuple):
    """What came of a recording: its windows in half precision, or why there are none."""

    windows: list[np.ndarray]
    error: str = ""
    warning: str = ""


def extract_one(processor: AudioProcessor, audio: Any) -> ExtractionResult:
    """The features of a recording, or why it cannot be used; warnings are kept, not shown."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            windows = [to_half(window) for window in processor.extract_features(audio)]
    except AudioError as error:
        return ExtractionResult([], " ".join(str(error).split()))
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return ExtractionResult(windows, "", " ".join(" ".join(texts).split()))


def limit_threads() -> None:
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

    processor: AudioProcessor
    rows: Dataset | None = None

    def read(self, i: int) -> ExtractionResult:
        """What comes of row i's recording."""
        assert self.rows is not None
        return extract_one(self.processor, self.rows[i]["audio"])


_READER: list[Any] = []  # of a worker process


def _begin(reader: Any) -> None:
    # Ctrl-C reaches every process: who started them ends them, and says so once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads()
    _READER[:] = [reader]


def _read(i: int) -> Any:
    return _READER[0].read(i)


def _extract(audio: Any) -> ExtractionResult:
    return extract_one(_READER[0].processor, audio)


def _pool(num_workers: int, reader: Any) -> ProcessPoolExecutor:
    # Spawned, not forked: torch's threads do not survive a fork.
    return ProcessPoolExecutor(
        num_workers, get_context("spawn"), initializer=_begin, initargs=(reader,)
    )


def read_rows(
    reader: RowReader,
    count: int,
    start: int,
    num_workers: int,
    *,
    worth: int = MIN_ROWS_FOR_WORKERS,
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
    if num_workers < 2 or len(left) < worth:
        yield from map(reader.read, left)
        return
    # Who takes the answers may compute meanwhile, on the cores that are left.
    cores = max(1, torch.get_num_threads() - num_workers)
    with threadpool_limits(cores), _pool(num_workers, reader) as pool:
        try:
            yield from pool.map(_read, left, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)


class ExtractionPool:
    """Processes that hear recordings as they come; started when they are first asked, and kept.

    Args:
        ear: how the backbone hears; told to each process once.
        workers: processes; below 2 this one hears.
    """

    def __init__(self, processor: AudioProcessor, num_workers: int) -> None:
        self._processor, self._workers = processor, num_workers
        self._pool: ProcessPoolExecutor | None = None

    def map(
        self, clips: Iterable[tuple[Any, Payload]]
    ) -> Iterator[tuple[ExtractionResult, Payload]]:
        """Each recording's answer and what came beside it, in their order.

        Only a few recordings are asked for ahead of what was answered.
        """
        if self._workers < 2:
            yield from ((extract_one(self._processor, audio), payload) for audio, payload in clips)
            return
        self._pool = self._pool or _pool(self._workers, Listener(self._processor))
        waiting: deque[tuple[Future[ExtractionResult], Payload]] = deque()
        try:
            for audio, payload in clips:
                waiting.append((self._pool.submit(_extract, audio), payload))
                if len(waiting) > PREFETCH_FACTOR * self._workers:
                    result, first = waiting.popleft()
                    yield result.result(), first
            while waiting:
                result, first = waiting.popleft()
                yield result.result(), first
        finally:
            for result, _ in waiting:
                result.cancel()
