"""The features of a data set, computed once: what training and evaluation read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from align.audio import AudioError
from align.data import DataError
from align.listening import Ear

WORTH_WORKERS = 400  # rows below which starting workers takes longer than it saves
MOST_UNUSABLE = 0.05  # share of recordings that may fail before a run is stopped


@dataclass
class Heard:
    """Recordings as features, with what is said of them.

    Attributes:
        features: a recording's windows, each (T, F) float16 or float32.
        captions: one a recording.
        labels: one a recording; those of one label say the same.
        recordings: where each came from: its path, or its row's number.
    """

    features: list[list[np.ndarray]]
    captions: list[str]
    labels: list[str]
    recordings: list[str]

    def __len__(self) -> int:
        return len(self.features)


def _features(ear: Ear, recording: Any) -> list[np.ndarray] | str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [f.astype(np.float32) for f in ear.features(recording)]
    except AudioError as error:
        return str(error)


_JOB: list[tuple[Ear, Dataset]] = []  # of a worker process


def _begin(ear: Ear, rows: Dataset) -> None:
    _JOB[:] = [(ear, rows)]


def _features_of_row(i: int) -> list[np.ndarray] | str:
    ear, rows = _JOB[0]
    return _features(ear, rows[i]["recording"])


def _answers(ear: Ear, rows: Dataset, workers: int) -> Iterator[list[np.ndarray] | str]:
    if workers < 2 or len(rows) < WORTH_WORKERS:
        yield from (_features(ear, row["recording"]) for row in rows)
        return
    # Spawned, not forked: torch's threads do not survive a fork. Each worker reads its own rows,
    # so that no process ever holds all recordings.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(ear, rows)) as pool:
        try:
            yield from pool.map(_features_of_row, range(len(rows)), chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)


def hear(ear: Ear, rows: Dataset, *, workers: int = 1, title: str = "features") -> Heard:
    """Computes the features of every row, with progress.

    A recording that cannot be used is named, counted and left out.

    Args:
        ear: how the backbone hears.
        rows: with the columns recording, caption and label.
        workers: processes.
        title: what the progress bar says.

    Raises:
        DataError: more than 5% of the recordings, or all, cannot be used.
    """
    heard = Heard([], [], [], [])
    failed: list[str] = []
    allowed = max(1, int(MOST_UNUSABLE * len(rows)))
    said = rows.with_format(None)  # makes no sound
    answers = tqdm(_answers(ear, rows, workers), title, len(rows), mininterval=1)
    for i, answer in enumerate(answers):
        if isinstance(answer, str):
            failed.append(f"row {i + 1}: {answer}")
            print(f"left out: {failed[-1]}", flush=True)
            if len(failed) > allowed:
                break
            continue
        row = said[i]
        heard.features.append(answer)
        heard.captions.append(row["caption"])
        heard.labels.append(row["label"])
        place = row.get("recording")
        heard.recordings.append(place if isinstance(place, str) else f"row {i + 1}")
    if len(failed) > allowed or not len(heard):
        raise DataError(
            f"{len(failed)} of {len(rows)} recordings cannot be used, more than "
            f"{MOST_UNUSABLE:.0%}; the first: {failed[0]}"
        )
    return heard


def joined(first: Heard, second: Heard) -> Heard:
    """The rows of both."""
    return Heard(
        first.features + second.features,
        first.captions + second.captions,
        first.labels + second.labels,
        first.recordings + second.recordings,
    )
