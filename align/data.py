"""Data sets as rows of (recording, caption, label): by name, from a folder, or from the hub."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Audio, Dataset, load_dataset

from align.names import DATASETS, lookup

if TYPE_CHECKING:
    from align.arguments import DataArguments

METADATA = ("metadata.csv", "metadata.jsonl")


class DataError(ValueError):
    """A data set cannot be used; the message says which, and what it would need."""


def load_rows(
    data: str,
    split: str,
    *,
    folds: Sequence[int] | None = None,
    recording_column: str | None = None,
    caption_column: str = "caption",
    label_column: str = "label",
) -> Dataset:
    """The rows of a data set.

    Args:
        data: a short name; a folder with metadata.csv or metadata.jsonl, whose column file_name
            is relative to it; or the hub id of a data set of data files.
        split: "train" or "test"; a folder has one set for both, told apart by `folds`.
        folds: keep only rows whose column "fold" is one of these.
        recording_column: where recordings are; "file_name" or "audio" by default.
        caption_column: where captions are.
        label_column: rows of one label say the same; without the column, rows of one caption do.

    Returns:
        A Dataset with the columns recording (a path, or a dict as `align.audio.read` takes it),
        caption and label.

    Raises:
        DataError: there is no such data set, or it lacks what is asked for.
    """
    source = lookup(DATASETS, data)
    if callable(source):
        rows = source(split)
        return rows if folds is None else _keep_folds(rows, data, folds)
    folder = Path(data).expanduser()
    if folder.is_dir():
        rows = _folder(folder)
        recording_column = recording_column or "file_name"
    else:
        rows = _hub(data, split)
        recording_column = recording_column or "audio"
    _check_columns(rows, data, recording_column, caption_column)
    if folds is not None:
        rows = _keep_folds(rows, data, folds)
    if folder.is_dir():
        _check_files(rows, folder, recording_column)
    return _rename(rows, folder, recording_column, caption_column, label_column)


def _folder(folder: Path) -> Dataset:
    for name in METADATA:
        if (folder / name).exists():
            kind = "csv" if name.endswith("csv") else "json"
            try:
                return load_dataset(kind, data_files=str(folder / name), split="train")
            except Exception as error:
                raise DataError(f"{folder / name} cannot be read as a table: {error}") from error
    raise DataError(
        f"{folder} has no {' and no '.join(METADATA)}: write one with the columns file_name "
        "(relative to the folder) and caption, and label and fold where there are any"
    )


def _hub(name: str, split: str) -> Dataset:
    try:
        rows = load_dataset(name, split=split)
    except Exception as error:
        near = difflib.get_close_matches(name, DATASETS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"there is no data set {name!r}: it is neither a short name "
            f"({', '.join(DATASETS)}), nor a folder, nor a data set that the hub serves "
            f"({type(error).__name__}: {_first_line(error)}){hint}"
        ) from error
    for column, feature in rows.features.items():
        if isinstance(feature, Audio):
            rows = rows.cast_column(column, Audio(decode=False))
    return rows


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]


def _check_columns(rows: Dataset, data: str, *columns: str) -> None:
    missing = [c for c in columns if c not in rows.column_names]
    if missing:
        raise DataError(
            f"{data} has no column {' and no column '.join(missing)}; "
            f"it has: {', '.join(rows.column_names)}"
        )
    if not len(rows):
        raise DataError(f"{data} has no rows")


def _keep_folds(rows: Dataset, data: str, folds: Sequence[int]) -> Dataset:
    _check_columns(rows, data, "fold")
    wanted = {str(fold) for fold in folds}
    there = sorted({str(fold) for fold in rows["fold"]})
    absent = wanted - set(there)
    if absent:
        raise DataError(f"{data} has no fold {', '.join(sorted(absent))}; it has {there}")
    return rows.select([i for i, fold in enumerate(rows["fold"]) if str(fold) in wanted])


def _check_files(rows: Dataset, folder: Path, column: str) -> None:
    missing = [name for name in rows[column] if not (folder / str(name)).is_file()]
    if len(missing) == len(rows):
        raise DataError(f"none of the {len(rows)} files named in {folder} is there: {missing[0]} …")


def _rename(rows: Dataset, folder: Path, recording: str, caption: str, label: str) -> Dataset:
    captions = list(rows[caption])
    labels = list(rows[label]) if label in rows.column_names else captions
    # A row without a label says what its caption says.
    labels = [c if name in (None, "") else name for name, c in zip(labels, captions, strict=True)]
    recordings: list[Any] = list(rows[recording])
    if folder.is_dir():
        recordings = [str(folder / str(name)) for name in recordings]
    said = {"caption": [str(c) for c in captions], "label": [str(name) for name in labels]}
    empty = [i for i, text in enumerate(said["caption"]) if not text.strip() or text == "None"]
    if empty:
        raise DataError(f"{len(empty)} rows have no caption, the first is row {empty[0] + 1}")
    if recordings and isinstance(recordings[0], str):
        return Dataset.from_dict({"recording": recordings, **said})
    kept = rows.select_columns([recording]).rename_column(recording, "recording")
    for name, column in said.items():
        kept = kept.add_column(name, column)
    return kept


def training_rows(data: DataArguments) -> Dataset:
    """The rows that the options train on."""
    return load_rows(data.data, "train", folds=data.folds, **_columns(data))


def held_out_rows(data: DataArguments) -> tuple[Dataset | None, str]:
    """The rows that the options measure on, None where no others are left, and what they are."""
    name, columns = data.eval_data or data.data, _columns(data)
    if data.eval_folds is not None:
        # Folds divide one and the same set.
        split = "test" if data.eval_data else "train"
        rows = load_rows(name, split, folds=data.eval_folds, **columns)
        return rows, f"{name}, folds {', '.join(map(str, data.eval_folds))}"
    if data.eval_data is not None:
        return load_rows(name, "test", **columns), name
    # A short name goes first: a folder may happen to be called the same.
    if name in DATASETS or not Path(name).expanduser().is_dir():
        return load_rows(name, "test", **columns), f"{name}, its test split"
    return None, "the training recordings themselves (no fold was held out)"


def _columns(data: DataArguments) -> dict[str, Any]:
    names = ("recording_column", "caption_column", "label_column")
    return {name: getattr(data, name) for name in names}
