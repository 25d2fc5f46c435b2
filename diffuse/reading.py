"""Reading pairs: the features of each recording and the squares of each image, by processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from threadpoolctl import threadpool_limits

from align.audio import AudioError
from align.cache import digest
from align.fingerprint import recording_names, told_file, told_recordings
from align.listening import Ear
from align.workers import one_thread
from diffuse.images import ImageError, open_image, views

WORTH_WORKERS = 200  # rows below which starting workers takes longer than it saves


@dataclass(frozen=True)
class Squares:
    """How images become squares, and the seed of what is random in it."""

    size: int
    crops: int
    flip: bool
    seed: int


@dataclass
class Reader:
    """Reads the rows of a data set.

    Attributes:
        ear: how recordings are heard.
        rows: with the columns recording and image.
        squares: how images are cut.
        repeated: rows whose recording an earlier row has, too.
    """

    ear: Ear
    rows: Dataset
    squares: Squares
    repeated: set[int]

    def read(self, i: int) -> tuple[list[np.ndarray] | None, np.ndarray] | str:
        """The features of row i's recording and its squares (V, R, R, 3), or why there are none."""
        squares = self.squares
        try:
            row = self.rows[i]
            rng = np.random.default_rng([squares.seed, i])
            image = open_image(row["image"])
            found = views(image, squares.size, squares.crops, squares.flip, rng)
            pixels = np.stack([np.asarray(square) for square in found])
            if i in self.repeated:
                return None, pixels
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                heard = self.ear.features(row["recording"])
        except (AudioError, ImageError, ValueError) as error:
            return str(error)
        return [f.astype(np.float32) for f in heard], pixels


_READER: list[Reader] = []  # of a worker process


def _begin(reader: Reader) -> None:
    one_thread()
    _READER[:] = [reader]


def _read(i: int) -> tuple[list[np.ndarray] | None, np.ndarray] | str:
    return _READER[0].read(i)


def read_all(reader: Reader, workers: int, start: int = 0) -> Iterator[Any]:
    """The answer of `Reader.read` for every row from `start` on, in order."""
    left = range(start, len(reader.rows))
    if workers < 2 or len(left) < WORTH_WORKERS:
        yield from map(reader.read, left)
        return
    spawn = get_context("spawn")  # not forked: torch's threads do not survive a fork
    # Who takes the answers computes meanwhile, on the cores that are left.
    cores = max(1, torch.get_num_threads() - workers)
    pool = ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(reader,))
    with threadpool_limits(cores), pool:
        try:
            yield from pool.map(_read, left, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)


def sounds_of(rows: Dataset) -> list[int]:
    """For each row the first row that has the same recording."""
    first: dict[str, int] = {}
    names = recording_names(rows.with_format(None))
    return [first.setdefault(name, i) for i, name in enumerate(names)]


def told_pairs(rows: Dataset) -> str:
    """A short name that follows from the recordings and images of pairs, whatever is said of them.

    Of pairs that are made when they are read, it follows from all that they are made from.
    """
    plain = rows.with_format(None)
    if {"recording", "image"} <= set(plain.column_names):
        return digest([told_recordings(rows), told_recordings(rows, "image")])
    made = {
        name: [told_file(value) if isinstance(value, str) else value for value in plain[name]]
        for name in plain.column_names
    }
    return digest(made)
