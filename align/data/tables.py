"""Where tables come from: a folder, a file, or the hub; always data files, never scripts."""

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
CAPTIONS = "captions.csv"  # what align.caption wrote, beside the pictures
READERS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
ROW_NUMBER = "__row__"  # a row's number in its table, where rows before it were left out
# A comma at the end of every line does not make names of the first column, and only an empty cell
# is missing: "None", "NA" and "null" are captions and classes as any other word.
CSV = {"index_col": False, "keep_default_na": False, "na_values": [""]}


def table_file(where: Path) -> Path | None:
    """The table that a folder or a file stands for; None where it is neither."""
    if where.is_file() and where.suffix.lower() in READERS:
        return where
    for name in (*METADATA, CAPTIONS):
        if (where / name).is_file():
            return where / name
    return None


def has_parquet(folder: Path) -> bool:
    """Whether a folder holds data files as the hub serves them, and no table of its own."""
    return folder.is_dir() and table_file(folder) is None and any(folder.rglob("*.parquet"))


def has_no_splits(where: Path) -> bool:
    """Whether a path is one's own table or folder, which has no splits."""
    return (where.is_dir() or table_file(where) is not None) and not has_parquet(where)


def read_table(path: Path) -> Dataset:
    """The rows of a CSV, TSV, JSON lines or parquet file.

    Raises:
        DataError: it is empty, no such table, or not in UTF-8.
    """
    empty = f"{path} is empty: it needs at least column names and two rows"
    if not path.stat().st_size:
        raise DataError(empty)
    try:
        rows = _load_table(path)
    except Exception as error:
        reason = root_cause(error)
        if "corresponds to no data" in reason:  # column names and no row
            raise DataError(empty) from error
        raise DataError(f"{path} cannot be read as a table: {_explain(reason)}") from error
    return disable_decoding(rows)


def read_captions_file(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """The column names and lines of what a captioner made, every cell as it is written.

    Raises:
        DataError: it is not in UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # Excel puts a mark before it
            table = csv.DictReader(file)
            return tuple(table.fieldnames or ()), list(table)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 ({error}): save it as UTF-8") from error


def _load_table(path: Path) -> Any:
    from pandas.errors import ParserWarning

    reader = READERS[path.suffix.lower()]
    more: dict[str, Any] = {}
    with warnings.catch_warnings():
        # It tells that fields for which there is no name would be dropped.
        warnings.simplefilter("error", ParserWarning)
        if reader == "csv":
            more = CSV | {"sep": "\t" if path.suffix.lower() == ".tsv" else ","}
            more["features"] = _all_text(path, more)
        return load_dataset(reader, data_files=str(path), split="train", **more)


def _all_text(path: Path, options: dict[str, Any]) -> Features:
    """The columns of a CSV, every cell of them as it is written.

    Types that are guessed make 7 of 007 and True of true, and are guessed anew from time to time:
    a word may come after ten thousand numbers.
    """
    import pandas

    names = pandas.read_csv(path, nrows=0, **options).columns
    return Features({name: Value("string") for name in names})


def _explain(reason: str) -> str:
    """What a reader says of a table, and what to do about it."""
    if "codec can't decode" in reason:
        return f"{reason}: save it as UTF-8"
    if "does not match length of data" in reason or "Error tokenizing data" in reason:
        return f"{reason}: a row has more fields than there are names: quote texts with commas"
    return reason


def open_folder(folder: Path, split: str) -> Dataset:
    """The rows of a folder: its table, or its parquet files as the hub would serve them.

    Raises:
        DataError: it has neither.
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
        "(relative to the folder) and caption, and label, licence and fold where there are any; "
        "a folder of recordings and pictures of the same names gets captions by align.caption"
    )


def _with_captions(rows: Dataset, path: Path) -> Dataset:
    """A table without captions takes those that a captioner made; its own always go first.

    Rows that have an empty one there, such as where a picture could not be read, are left out.
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
    few = len(rows) - len(kept)
    print(
        f"{few} of {len(rows)} rows have an empty caption in {captions_file} and are left out",
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
    """A data set of the hub, or of a folder of parquet files, its recordings left undecoded.

    Raises:
        DataError: there is none, or it has no such split.
    """
    try:
        rows = load_dataset(name, split=split, streaming=streaming, **options)
    except Exception as error:
        raise DataError(_not_found_message(name, split, error, known)) from error
    return disable_decoding(rows)


def prepare_hub(name: str) -> None:
    """Brings all splits of a data set of the hub to where `open_hub` finds them.

    Raises:
        DataError: there is none.
    """
    try:
        load_dataset_builder(name).download_and_prepare()
    except Exception as error:
        raise DataError(_not_found_message(name, "train", error, tuple(DATASETS))) from error


def _not_found_message(name: str, split: str, error: Exception, known: Collection[str]) -> str:
    reason = root_cause(error)
    if "split" in reason.lower() and "should be one of" in reason.lower():
        there = reason.lower().partition("should be one of")[2].strip(" .[]")
        return (
            f"{name} has no split {split!r}, only {there}: measure on folds of it (--folds and "
            "--eval_folds) or on another data set (--eval_dataset)"
        )
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        f"there is no data set {name!r}: it is neither a short name ({', '.join(known)}), nor "
        f"a folder, nor a table, nor a data set that the hub serves as data files "
        f"({type(error).__name__}: {reason}){hint}"
    )


def disable_decoding(rows: Any) -> Any:
    """Rows whose recordings and pictures stay bytes: `align.audio.read` decodes them one by one."""
    assert isinstance(rows, Dataset | IterableDataset)
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, Audio):
            rows = rows.cast_column(column, Audio(decode=False))
        elif isinstance(feature, Image):
            rows = rows.cast_column(column, Image(decode=False))
    return rows
