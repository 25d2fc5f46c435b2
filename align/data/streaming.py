"""Stream a dataset: text columns are read at the start, audio row by row.

Captions, labels and licenses fit in memory and are known before the first step. Audio is read in an
order that depends on seed and epoch, with only a shuffle buffer in memory.
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

Row = tuple[Any, str, str]  # audio, caption, label


@dataclass(frozen=True)
class Stream:
    """Streamed rows of a dataset.

    Attributes:
        captions: Caption of each row, in the order of the dataset.
        labels: Label of each row.
        iterate: Function from (seed, epoch) to an iterator over that epoch's rows.
        licenses: License of each row, if the dataset has licenses.
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
    """Load a dataset as a stream.

    Local folders, tables and the mini datasets are iterated in a random order of all rows. Hub
    datasets and folders of parquet files are iterated file by file in a random order of files,
    with rows sampled from a shuffle buffer.

    Args:
        dataset: Dataset, as for `load_rows`.
        split: Split, as for `load_rows`.
        folds: Keep only rows of these folds.
        licenses: Keep only rows with these licenses.
        buffer_size: Number of clips in the shuffle buffer.
        **columns: Column options, as for `load_rows`.

    Raises:
        DataError: If there is no such dataset, or it lacks a column, fold or license.
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
    undecoded = rows.with_format(None)  # skips transforms that synthesize audio
    captions, labels = list(undecoded["caption"]), list(undecoded["label"])
    licenses = list(undecoded["license"]) if "license" in undecoded.column_names else None

    def iterate(seed: int, epoch: int) -> Iterator[Row]:
        for i in np.random.default_rng([seed, epoch]).permutation(len(captions)).tolist():
            yield rows[i]["audio"], captions[i], labels[i]

    return Stream(captions, labels, iterate, licenses)


class _HubStream:
    """Streamed dataset with its folds and licenses filter."""

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
        """Read the text columns of every selected row; parquet files are read only in these."""
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
            summary = license_summary([row["license"] for row in text_rows])
            print(f"{self.dataset}: licenses: {summary}", flush=True)
        empty = sum(not row["caption"].strip() for row in text_rows)
        if empty:
            raise DataError(f"{empty} of {len(text_rows)} rows of {self.dataset} have no caption")
        return text_rows

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row has one of the requested folds and licenses."""
        if self._licenses is None or not self._of_folds(row):
            return self._of_folds(row)
        return is_allowed(self.read_row(row).get("license"), allowed_names(self._licenses))

    def _of_folds(self, row: Mapping[str, Any]) -> bool:
        return self._folds is None or fold_name(row["fold"]) in self._folds

    def audio(self, row: Mapping[str, Any]) -> Any:
        """Return the audio of a row; paths are resolved against the folder of the dataset."""
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
