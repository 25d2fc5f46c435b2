"""Read tables from a folder, a file or the Hub; only data files, never loading scripts."""

from __future__ import annotations

import csv
import difflib
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from datasets import (
    Audio,
    Dataset,
    Features,
    Image,
    IterableDataset,
    Value,
    load_dataset,
    load_dataset_builder,
)

from align.data.errors import DataError, root_cause
from align.registry import DATASETS

METADATA = ("metadata.csv", "metadata.jsonl")
CAPTIONS = "captions.csv"  # written by align.caption
READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
ROW_NUMBER = "__row__"  # column with the row numbers in the source if rows were removed
# With a trailing comma on every line the first column must not become an index. Only empty cells
# are missing: "None", "NA" and "null" are valid captions and labels.
CSV = {"index_col": False, "keep_default_na": False, "na_values": [""]}


def table_file(where: Path) -> Path | None:
    """Return the table of a folder, or the file itself if it is a table; None otherwise."""
    if where.is_file() and where.suffix.lower() in READERS:
        return where
    for name in (*METADATA, CAPTIONS):
        if (where / name).is_file():
            return where / name
    return None


def has_parquet(folder: Path) -> bool:
    """Return whether a folder contains parquet files and no metadata table."""
    return folder.is_dir() and table_file(folder) is None and any(folder.rglob("*.parquet"))


def has_no_splits(where: Path) -> bool:
    """Return whether a path is a local table or folder without splits."""
    return (where.is_dir() or table_file(where) is not None) and not has_parquet(where)


def read_table(path: Path) -> Dataset:
    """Read a CSV, TSV, JSON lines or parquet file.

    Args:
        path: File with one of the extensions in `READERS`.

    Raises:
        DataError: If it is empty, not a valid table, or not UTF-8.
    """
    empty = f"{path} is empty: it needs column names and at least two rows"
    if not path.stat().st_size:
        raise DataError(empty)
    try:
        rows = _load_table(path)
    except Exception as error:
        reason = root_cause(error)
        if "corresponds to no data" in reason:  # column names but no rows
            raise DataError(empty) from error
        raise DataError(f"{path} cannot be read as a table: {_explain(reason)}") from error
    return disable_decoding(rows)


def read_captions_file(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Read captions.csv without converting cells.

    Args:
        path: CSV file written by align.caption.

    Returns:
        The column names, and the lines by column name.

    Raises:
        DataError: If it is not UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a byte order mark
            table = csv.DictReader(file)
            return tuple(table.fieldnames or ()), list(table)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error


def _load_table(path: Path) -> Any:
    from pandas.errors import ParserWarning

    reader = READERS[path.suffix.lower()]
    more: dict[str, Any] = {}
    with warnings.catch_warnings():
        # pandas warns when it drops fields without a column name.
        warnings.simplefilter("error", ParserWarning)
        if reader == "csv":
            more = CSV | {"sep": "\t" if path.suffix.lower() == ".tsv" else ","}
            more["features"] = _all_text(path, more)
        return load_dataset(reader, data_files=str(path), split="train", **more)


def _all_text(path: Path, options: dict[str, Any]) -> Features:
    """Return features that read every column of a CSV as text.

    Inferred types turn 007 into 7 and true into True, and may change within a file: a word can
    follow ten thousand numbers.
    """
    import pandas

    names = pandas.read_csv(path, nrows=0, **options).columns
    return Features({name: Value("string") for name in names})


def _explain(reason: str) -> str:
    """Add what to do to the error message of a table reader."""
    if "codec can't decode" in reason:
        return f"{reason}: save it as UTF-8"
    if "does not match length of data" in reason or "Error tokenizing data" in reason:
        return f"{reason}: a row has more fields than the header: quote texts that contain commas"
    return reason


def open_folder(folder: Path, split: str) -> Dataset:
    """Load the rows of a folder from its metadata table or its parquet files.

    Args:
        folder: Folder of the dataset.
        split: Split of the parquet files.

    Raises:
        DataError: If the folder does not exist or has neither.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    path = table_file(folder)
    if path is not None:
        return _with_captions(read_table(path), path)
    if has_parquet(folder):
        rows = open_hub(str(folder), split)
        assert isinstance(rows, Dataset)
        return rows
    raise DataError(
        f"{folder} has no {' and no '.join(METADATA)}: write one with the columns file_name "
        "(relative to the folder) and caption, and optionally label, license and fold; "
        "align.caption captions a folder of audio files and images with matching names"
    )


def _with_captions(rows: Dataset, path: Path) -> Dataset:
    """Fill missing captions of a table from captions.csv; existing captions take precedence.

    Rows with an empty caption there, for example of unreadable images, are removed.
    """
    captions_file = path.parent / CAPTIONS
    if path.name == CAPTIONS and {"caption", "captioner"} <= set(rows.column_names):
        return _drop_uncaptioned(rows, [text or "" for text in rows["caption"]], captions_file)
    if path.name not in METADATA or not captions_file.is_file():
        return rows
    if "file_name" not in rows.column_names:
        return rows
    table = read_table(captions_file)
    by_name = {
        name: text or "" for name, text in zip(table["file_name"], table["caption"], strict=True)
    }
    own = list(rows["caption"]) if "caption" in rows.column_names else [None] * len(rows)
    filled = [
        by_name.get(name) if text is None or not str(text).strip() else str(text)
        for name, text in zip(rows["file_name"], own, strict=True)
    ]
    rest = rows.remove_columns("caption") if "caption" in rows.column_names else rows
    return _drop_uncaptioned(rest.add_column("caption", filled), filled, captions_file)


def _drop_uncaptioned(rows: Dataset, captions: list[str | None], captions_file: Path) -> Dataset:
    kept = [i for i, text in enumerate(captions) if text != ""]
    if len(kept) == len(rows):
        return rows
    rows = rows.add_column(ROW_NUMBER, list(range(1, len(rows) + 1)))
    count = len(rows) - len(kept)
    print(
        f"skipped: {count} of {len(rows)} rows have an empty caption in {captions_file}",
        flush=True,
    )
    return rows.select(kept)


def open_hub(
    name: str,
    split: str,
    streaming: bool = False,
    known: Collection[str] = tuple(DATASETS),
    **options: Any,
) -> Any:
    """Load a Hub dataset or a folder of parquet files without decoding audio and images.

    Args:
        name: Hub id or folder.
        split: Split to load.
        streaming: Whether to return an IterableDataset.
        known: Short names to suggest if there is no such dataset.
        **options: Keyword arguments of `datasets.load_dataset`.

    Raises:
        DataError: If there is no such dataset or split.
    """
    try:
        rows = load_dataset(name, split=split, streaming=streaming, **options)
    except Exception as error:
        raise DataError(_not_found_message(name, split, error, known)) from error
    return disable_decoding(rows)


def prepare_hub(name: str) -> None:
    """Download all splits of a Hub dataset into the cache that `open_hub` uses.

    Args:
        name: Hub id.

    Raises:
        DataError: If there is no such dataset.
    """
    try:
        load_dataset_builder(name).download_and_prepare()
    except Exception as error:
        raise DataError(_not_found_message(name, "train", error, tuple(DATASETS))) from error


def _not_found_message(name: str, split: str, error: Exception, known: Collection[str]) -> str:
    reason = root_cause(error)
    if "split" in reason.lower() and "should be one of" in reason.lower():
        splits = reason.lower().partition("should be one of")[2].strip(" .[]")
        return (
            f"{name} has no split {split!r}, only {splits}: evaluate on folds of it (--folds and "
            "--eval_folds) or on another dataset (--eval_dataset)"
        )
    matches = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {matches[0]!r}?" if matches else ""
    return (
        f"there is no dataset {name!r}: it is neither a short name ({', '.join(known)}), nor "
        f"a folder, nor a table, nor a Hub dataset of data files "
        f"({type(error).__name__}: {reason}){hint}"
    )


def disable_decoding(rows: Any) -> Any:
    """Disable the decoding of audio and image columns; `align.audio.read` decodes single clips."""
    assert isinstance(rows, Dataset | IterableDataset)
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, Audio):
            rows = rows.cast_column(column, Audio(decode=False))
        elif isinstance(feature, Image):
            rows = rows.cast_column(column, Image(decode=False))
    return rows
