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

from align.data.columns import ColumnMapping
from align.data.errors import DataError
from align.data.licenses import allowed_names, filter_by_license, is_allowed, license_summary
from align.data.loading import (
    check_fold_column,
    check_folds,
    fold_name,
    fold_names,
    given_columns,
    load_rows,
    resolve_dataset,
    root_folder,
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
    iterate: Callable[[int, int], Iterator[Row]]
    licenses: list[str] | None = None

    def __len__(self) -> int:
        return len(self.captions)


def load_stream(
    dataset: str,
    split: str,
    *,
    folds: Sequence[int] | None = None,
    licenses: Sequence[str] | None = None,
    buffer_size: int = 256,
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
    source, mapping = resolve_dataset(dataset, **columns)
    if mapping is None or (isinstance(source, Path) and not has_parquet(source)):
        rows = load_rows(dataset, split, folds=folds, licenses=licenses, **columns)
        return _stream_from_rows(rows)
    raw = open_hub(str(source), mapping.splits.get(split, split), streaming=True)
    root = root_folder(source if isinstance(source, Path) else None)
    stream = _HubStream(raw, mapping, given_columns(**columns), dataset, root, folds, licenses)
    return _stream_from_hub(stream, buffer_size)


def _stream_from_rows(rows: Dataset) -> Stream:
    undecoded = rows.with_format(None)  # makes no sound
    captions, labels = list(undecoded["caption"]), list(undecoded["label"])
    licenses = list(undecoded["license"]) if "license" in undecoded.column_names else None

    def iterate(seed: int, epoch: int) -> Iterator[Row]:
        for i in np.random.default_rng([seed, epoch]).permutation(len(captions)).tolist():
            yield rows[i]["audio"], captions[i], labels[i]

    return Stream(captions, labels, iterate, licenses)


class _HubStream:
    """A streamed data set, and which of its rows are wanted."""

    def __init__(
        self, raw: IterableDataset, mapping: ColumnMapping, given: Mapping[str, str], dataset: str,
        root: Path, folds: Sequence[int] | None, licenses: Sequence[str] | None,
    ) -> None:  # fmt: skip
        columns = list(raw.column_names or next(iter(raw), {}))
        mapping = mapping.resolve(dataset, columns, given)
        if folds is not None:
            check_fold_column(columns, dataset)
        self.raw, self.dataset = raw, dataset
        self._audio_column, self._root = mapping.audio, root
        self.read_row = mapping.row_reader(raw.features, columns)
        self._text_columns = mapping.text_columns(columns)
        self._folds = None if folds is None else fold_names(folds)
        self._licenses = licenses

    def read_text(self) -> list[dict[str, str]]:
        """What is said of every wanted row; of parquet files only these columns are read."""
        text_rows, folds = [], set()
        for row in self.raw.select_columns(self._text_columns):
            folds.add(fold_name(row.get("fold")))
            if self._of_folds(row):
                text_rows.append(self.read_row(row))
        if folds and self._folds is not None:
            check_folds(self._folds, folds, self.dataset)
        if not text_rows:
            raise DataError(f"{self.dataset} has no rows")
        stated = [row["license"] for row in text_rows] if "license" in text_rows[0] else None
        if self._licenses is not None:
            text_rows = [
                text_rows[i] for i in filter_by_license(stated, self._licenses, self.dataset)
            ]
        if stated is not None:
            print(
                f"{self.dataset}: licences: {license_summary([row['license'] for row in text_rows])}",
                flush=True,
            )
        empty = sum(not row["caption"].strip() for row in text_rows)
        if empty:
            raise DataError(f"{empty} of {len(text_rows)} rows of {self.dataset} have no caption")
        return text_rows

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of the folds and licences asked for."""
        if self._licenses is None or not self._of_folds(row):
            return self._of_folds(row)
        return is_allowed(self.read_row(row).get("license"), allowed_names(self._licenses))

    def _of_folds(self, row: Mapping[str, Any]) -> bool:
        return self._folds is None or fold_name(row["fold"]) in self._folds

    def audio(self, row: Mapping[str, Any]) -> Any:
        """A row's recording; a path is relative to where the data set lies."""
        found = row[self._audio_column]
        return str(self._root / found) if isinstance(found, str) else found


def _stream_from_hub(stream: _HubStream, buffer_size: int) -> Stream:
    text_rows = stream.read_text()

    def iterate(seed: int, epoch: int) -> Iterator[Row]:
        shuffled = stream.raw.filter(stream.matches).shuffle(seed=seed, buffer_size=buffer_size)
        shuffled.set_epoch(epoch)
        for row in shuffled:
            text = stream.read_row(row)
            yield stream.audio(row), text["caption"], text["label"]

    captions, labels = [row["caption"] for row in text_rows], [row["label"] for row in text_rows]
    licenses = [row["license"] for row in text_rows] if "license" in text_rows[0] else None
    return Stream(captions, labels, iterate, licenses)
