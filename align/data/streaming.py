"""A data set as a stream: what is said is read at the start, what is heard row by row.

Captions, labels and licences are text, small enough to know before the first step. Recordings are
not: they pass one after the other, in an order that follows from seed and epoch, and only a buffer
of them is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset

from align.data.columns import Layout
from align.data.errors import DataError
from align.data.licenses import is_wanted, kept_rows, told, wanted_names
from align.data.loading import (
    check_column,
    check_folds,
    find,
    fold_name,
    fold_names,
    folder_of,
    given_columns,
    load_rows,
)
from align.data.tables import has_parquet, open_hub

Row = tuple[Any, str, str]  # recording, caption, label


@dataclass(frozen=True)
class Stream:
    """Rows that can be passed through once an epoch.

    Attributes:
        captions: one a row, in the data's own order.
        labels: one a row.
        passing: from (seed, epoch) to that epoch's rows.
        licences: one a row, where the data states them.
    """

    captions: list[str]
    labels: list[str]
    passing: Callable[[int, int], Iterator[Row]]
    licences: list[str] | None = None

    def __len__(self) -> int:
        return len(self.captions)


def load_stream(
    data: str,
    split: str,
    *,
    folds: Sequence[int] | None = None,
    licences: Sequence[str] | None = None,
    buffer: int = 256,
    **columns: Any,
) -> Stream:
    """A data set's rows as a stream.

    What lies here (a folder, a table, the miniature) is passed in a random order of all rows. What
    comes from the hub, or from a folder of parquet files, is passed file by file in a random order
    of files, each row drawn from a buffer.

    Args:
        data, split, folds, licences, columns: as `load_rows` takes them.
        buffer: how many recordings are held to draw the next one from.

    Raises:
        DataError: as `load_rows` does.
    """
    source, layout = find(data, **columns)
    if layout is None or (isinstance(source, Path) and not has_parquet(source)):
        rows = load_rows(data, split, folds=folds, licences=licences, **columns)
        return _of_rows(rows)
    raw = open_hub(str(source), layout.splits.get(split, split), streaming=True)
    base = folder_of(source if isinstance(source, Path) else None)
    passage = _Passage(raw, layout, given_columns(**columns), data, base, folds, licences)
    return _of_hub(passage, buffer)


def _of_rows(rows: Dataset) -> Stream:
    said = rows.with_format(None)  # makes no sound
    captions, labels = list(said["caption"]), list(said["label"])
    licences = list(said["licence"]) if "licence" in said.column_names else None

    def passing(seed: int, epoch: int) -> Iterator[Row]:
        for i in np.random.default_rng([seed, epoch]).permutation(len(captions)).tolist():
            yield rows[i]["recording"], captions[i], labels[i]

    return Stream(captions, labels, passing, licences)


class _Passage:
    """A streamed data set, and which of its rows are wanted."""

    def __init__(
        self, raw: IterableDataset, layout: Layout, given: Mapping[str, str], data: str,
        base: Path, folds: Sequence[int] | None, licences: Sequence[str] | None,
    ) -> None:  # fmt: skip
        columns = list(raw.column_names or next(iter(raw), {}))
        layout = layout.fitted(data, columns, given)
        if folds is not None:
            check_column(columns, data)
        self.raw, self.data = raw, data
        self._recording, self._base = layout.recording, base
        self.say = layout.sayer(raw.features, columns)
        self._light = layout.light(columns)
        self._folds = None if folds is None else fold_names(folds)
        self._licences = licences

    def said(self) -> list[dict[str, str]]:
        """What is said of every wanted row; of parquet files only these columns are read."""
        said, folds = [], set()
        for row in self.raw.select_columns(self._light):
            folds.add(fold_name(row.get("fold")))
            if self._of_folds(row):
                said.append(self.say(row))
        if folds and self._folds is not None:
            check_folds(self._folds, folds, self.data)
        if not said:
            raise DataError(f"{self.data} has no rows")
        stated = [row["licence"] for row in said] if "licence" in said[0] else None
        if self._licences is not None:
            said = [said[i] for i in kept_rows(stated, self._licences, self.data)]
        if stated is not None:
            print(f"{self.data}: licences: {told([row['licence'] for row in said])}", flush=True)
        empty = sum(not row["caption"].strip() for row in said)
        if empty:
            raise DataError(f"{empty} of {len(said)} rows of {self.data} have no caption")
        return said

    def is_wanted(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of the folds and licences asked for."""
        if self._licences is None or not self._of_folds(row):
            return self._of_folds(row)
        return is_wanted(self.say(row).get("licence"), wanted_names(self._licences))

    def _of_folds(self, row: Mapping[str, Any]) -> bool:
        return self._folds is None or fold_name(row["fold"]) in self._folds

    def recording(self, row: Mapping[str, Any]) -> Any:
        """A row's recording; a path is relative to where the data set lies."""
        found = row[self._recording]
        return str(self._base / found) if isinstance(found, str) else found


def _of_hub(passage: _Passage, buffer: int) -> Stream:
    said = passage.said()

    def passing(seed: int, epoch: int) -> Iterator[Row]:
        mixed = passage.raw.filter(passage.is_wanted).shuffle(seed=seed, buffer_size=buffer)
        mixed.set_epoch(epoch)
        for row in mixed:
            text = passage.say(row)
            yield passage.recording(row), text["caption"], text["label"]

    captions, labels = [row["caption"] for row in said], [row["label"] for row in said]
    licences = [row["licence"] for row in said] if "licence" in said[0] else None
    return Stream(captions, labels, passing, licences)
