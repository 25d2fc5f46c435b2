"""Extract features in one or several processes, with identical results and order."""

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

MIN_ROWS_FOR_WORKERS = 400  # for fewer rows, starting workers takes longer than it saves
PREFETCH_FACTOR = 4  # clips in flight per worker
Payload = TypeVar("Payload")


class ExtractionResult(NamedTuple):
    """Features of a clip, or the reason why there are none.

    Attributes:
        windows: Feature windows in half precision; empty if the clip is unusable.
        error: Error message, or "".
        warning: Warnings, or "".
    """

    windows: list[np.ndarray]
    error: str = ""
    warning: str = ""


def extract_one(processor: AudioProcessor, audio: Any) -> ExtractionResult:
    """Extract the features of a clip; errors and warnings are returned instead of raised.

    Args:
        processor: Audio processor of the encoder.
        audio: Audio in any form that `align.audio.read` accepts.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            windows = [to_half(window) for window in processor.extract_features(audio)]
    except AudioError as error:
        return ExtractionResult([], " ".join(str(error).split()))
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return ExtractionResult(windows, "", " ".join(" ".join(texts).split()))


def limit_threads() -> None:
    """Limit this process to one thread, because there is one worker per core."""
    threadpool_limits(1)


class RowReader(Protocol):
    """Reader of a dataset's rows; sent to each worker process once."""

    def read(self, i: int) -> Any:
        """Read row i."""
        ...


@dataclass
class ClipExtractor:
    """Extracts the features of single clips, or of a dataset's rows.

    Attributes:
        processor: Audio processor of the encoder.
        rows: Rows with the column audio; None if only single clips are extracted.
    """

    processor: AudioProcessor
    rows: Dataset | None = None

    def read(self, i: int) -> ExtractionResult:
        """Extract the features of row i."""
        assert self.rows is not None
        return extract_one(self.processor, self.rows[i]["audio"])


_READER: list[Any] = []  # reader of this worker process


def _init_worker(reader: Any) -> None:
    # Ctrl-C reaches every process: only the parent handles it, and shuts the workers down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads()
    _READER[:] = [reader]


def _read(i: int) -> Any:
    return _READER[0].read(i)


def _extract(audio: Any) -> ExtractionResult:
    return extract_one(_READER[0].processor, audio)


def _pool(num_workers: int, reader: Any) -> ProcessPoolExecutor:
    # Spawned, because torch's threads do not survive a fork.
    return ProcessPoolExecutor(
        num_workers, get_context("spawn"), initializer=_init_worker, initargs=(reader,)
    )


def read_rows(
    reader: RowReader,
    count: int,
    start: int,
    num_workers: int,
    *,
    worth: int = MIN_ROWS_FOR_WORKERS,
) -> Iterator[Any]:
    """Read the rows of a dataset in order.

    Args:
        reader: Reads a row; every worker reads its own rows, so that no process holds all of them.
        count: Total number of rows.
        start: First row to read.
        num_workers: Number of processes; below 2, this process reads.
        worth: Minimum number of rows for which workers are started.
    """
    left = range(start, count)
    if num_workers < 2 or len(left) < worth:
        yield from map(reader.read, left)
        return
    # The consumer may compute in the meantime, on the remaining cores.
    cores = max(1, torch.get_num_threads() - num_workers)
    with threadpool_limits(cores), _pool(num_workers, reader) as pool:
        try:
            yield from pool.map(_read, left, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)


class ExtractionPool:
    """Persistent pool of feature-extraction processes, started on first use.

    Args:
        processor: Audio processor of the encoder; sent to each process once.
        num_workers: Number of processes; below 2, this process extracts.
    """

    def __init__(self, processor: AudioProcessor, num_workers: int) -> None:
        self._processor, self._workers = processor, num_workers
        self._pool: ProcessPoolExecutor | None = None

    def map(
        self, clips: Iterable[tuple[Any, Payload]]
    ) -> Iterator[tuple[ExtractionResult, Payload]]:
        """Extract the features of clips in order, prefetching only a few.

        Args:
            clips: Pairs of audio and a payload that is passed through.

        Returns:
            Iterator over pairs of result and payload.
        """
        if self._workers < 2:
            yield from ((extract_one(self._processor, audio), payload) for audio, payload in clips)
            return
        self._pool = self._pool or _pool(self._workers, ClipExtractor(self._processor))
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
