"""Load a dataset as rows of (audio, caption, label), with licenses if it has any."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, Value

from align.data.columns import ColumnMapping, HubDataset, cell_to_text
from align.data.errors import DataError
from align.data.licenses import filter_by_license, license_summary
from align.data.tables import ROW_NUMBER, open_folder, open_hub, read_table, table_file
from align.registry import DATASETS, lookup


def resolve_dataset(
    dataset: str,
    audio_column: str | None = None,
    caption_column: str = "caption",
    label_column: str = "label",
    license_column: str | None = None,
    caption_template: str | None = None,
) -> tuple[Callable[[str], Dataset] | Path | str, ColumnMapping | None]:
    """Resolve the name of a dataset to its source and columns.

    Args:
        dataset: Short name, NAME@FOLDER, folder, table or Hub id.
        audio_column: Column with the audio; "file_name" or "audio" by default.
        caption_column: Column with the captions.
        label_column: Column with the labels.
        license_column: Column with the licenses; "licence" or "license" by default.
        caption_template: Template that turns labels into captions.

    Returns:
        A function from a split to rows and None; or a folder, table or Hub id and its columns.
        Datasets with a short name have columns of their own, see `given_columns`.
    """
    name, _, copy = dataset.partition("@")
    source = lookup(DATASETS, name)
    if isinstance(source, HubDataset):
        mapping = replace(source.columns, license=license_column)
        if caption_template is not None:
            mapping = replace(mapping, template=caption_template)
        return (Path(copy).expanduser() if copy else source.repo_id), mapping
    if callable(source):
        return source, None
    where = Path(dataset).expanduser()
    exists = where.is_dir() or table_file(where) is not None
    default_column = "file_name" if table_file(where) and where.suffix != ".parquet" else "audio"
    mapping = ColumnMapping(
        audio_column or default_column,
        caption_column,
        label_column,
        license_column,
        caption_template,
    )
    return (where if exists else dataset), mapping


def given_columns(**columns: Any) -> dict[str, str]:
    """Return the column names passed by the user, by audio, caption and label."""
    named = {name: columns.get(f"{name}_column") for name in ("audio", "caption", "label")}
    return {name: column for name, column in named.items() if column}


def load_rows(
    dataset: str,
    split: str,
    *,
    folds: Sequence[int] | None = None,
    licenses: Sequence[str] | None = None,
    **columns: Any,
) -> Dataset:
    """Load the rows of a dataset.

    Args:
        dataset: Short name, or NAME@FOLDER for a local copy of it; folder with metadata.csv or
            metadata.jsonl, or such a table, with paths in file_name relative to it; or Hub id of
            a dataset of data files.
        split: "train" or "test"; a folder has one set for both, divided by `folds`.
        folds: Keep only rows with one of these values in the column fold.
        licenses: Keep only rows with these licenses, see `licenses.filter_by_license`.
        **columns: Options of `resolve_dataset`: audio_column, caption_column, label_column,
            license_column and caption_template.

    Returns:
        Dataset with the columns audio (a path, or a dict for `align.audio.read`), caption, label
        and row (row number in the source, from 1); and, if the source has them, clip (identifies
        the audio) and license.

    Raises:
        DataError: If there is no such dataset, or it lacks a column, fold or license.
    """
    source, mapping = resolve_dataset(dataset, **columns)
    if mapping is None:
        assert callable(source)
        return filter_rows(source(split), dataset, folds, licenses)
    if isinstance(source, Path):
        raw = (
            read_table(source)
            if source.is_file()
            else open_folder(source, _split_name(mapping, split))
        )
    else:
        assert isinstance(source, str)
        raw = open_hub(source, _split_name(mapping, split))
    own = [name for name in raw.column_names if name != ROW_NUMBER]
    mapping = mapping.resolve(dataset, own, given_columns(**columns))
    if not len(raw):
        raise DataError(f"{dataset} has no rows")
    root = source if isinstance(source, Path) else None
    rows = _read_text(raw, dataset, mapping)
    rows = filter_rows(rows, dataset, folds, licenses)
    return _resolve_paths(rows, dataset, root)


def _split_name(mapping: ColumnMapping, split: str) -> str:
    return mapping.splits.get(split, split)


def _read_text(raw: Dataset, dataset: str, mapping: ColumnMapping) -> Dataset:
    """Add caption, label and other text columns to the audio, which is not decoded or copied."""
    names = mapping.text_columns(raw.column_names)
    read_row = mapping.row_reader(raw.features, raw.column_names)
    text_rows = raw.select_columns(names)
    table = [read_row(row) for row in text_rows]
    numbers = (
        list(raw[ROW_NUMBER]) if ROW_NUMBER in raw.column_names else list(range(1, len(raw) + 1))
    )
    empty = [i for i, row in enumerate(table) if not row["caption"].strip()]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(table)} rows of {dataset} have no caption, the first is "
            f"row {numbers[empty[0]]}: add captions, remove these rows, or caption images with "
            "align.caption"
        )
    rows = raw.select_columns([mapping.audio])
    if mapping.audio != "audio":
        rows = rows.rename_column(mapping.audio, "audio")
    if "fold" in names:
        rows = rows.add_column("fold", [fold_name(fold) for fold in text_rows["fold"]])
    for column in table[0]:
        rows = rows.add_column(column, [row[column] for row in table])
    return rows.add_column("row", numbers)


def filter_rows(
    rows: Dataset, dataset: str, folds: Sequence[int] | None, licenses: Sequence[str] | None
) -> Dataset:
    """Keep the rows of some folds and licenses, and print the licenses.

    Args:
        rows: Rows with optional columns fold and license.
        dataset: Name of the dataset in messages.
        folds: Folds to keep; None for all.
        licenses: Licenses to keep; None for all.

    Raises:
        DataError: If a fold does not exist, or no row has one of the licenses.
    """
    if folds is not None:
        rows = keep_folds(rows, dataset, folds)
    if "fold" in rows.column_names:
        rows = rows.remove_columns("fold")
    plain = rows.with_format(None)  # skips transforms that synthesize audio
    stated = list(plain["license"]) if "license" in plain.column_names else None
    if licenses is not None:
        kept = filter_by_license(stated, licenses, dataset)
        rows = rows.select(kept)
        stated = [stated[i] for i in kept] if stated is not None else None
    if stated is not None:
        print(f"{dataset}: licenses: {license_summary(stated)}", flush=True)
    return rows


def keep_folds(rows: Dataset, dataset: str, folds: Sequence[int]) -> Dataset:
    """Keep the rows whose column fold has one of the given values.

    Args:
        rows: Rows with the column fold.
        dataset: Name of the dataset in messages.
        folds: Folds to keep.

    Raises:
        DataError: If there is no column fold, or a fold has no rows.
    """
    check_fold_column([name for name in rows.column_names if name != "row"], dataset)
    requested = fold_names(folds)
    stated = [fold_name(fold) for fold in rows.with_format(None)["fold"]]
    check_folds(requested, stated, dataset)
    return rows.select([i for i, fold in enumerate(stated) if fold in requested])


def root_folder(root: Path | None) -> Path:
    """Return the folder that audio paths are relative to.

    Args:
        root: Table or folder of the dataset; None for the Hub, whose paths are relative to the
            current directory.
    """
    return Path() if root is None else root.parent if root.is_file() else root


def _resolve_paths(rows: Dataset, dataset: str, root: Path | None) -> Dataset:
    """Resolve audio paths, check that the files exist, and remove duplicate rows."""
    if rows.features["audio"] not in (Value("string"), Value("large_string")):
        return rows
    folder = root_folder(root)
    paths = [str(folder / str(name)) for name in rows["audio"]]
    missing = [path for path in paths if not Path(path).is_file()]
    if len(missing) == len(paths):
        raise DataError(
            f"none of the {len(paths)} files listed in {dataset} exists: {missing[0]} …"
        )
    table = {name: list(rows[name]) for name in rows.column_names} | {"audio": paths}
    keys = list(zip(paths, table["caption"], table["label"], strict=True))
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    if len(first) < len(keys):
        kept = sorted(first.values())
        print(f"{dataset}: removed {len(keys) - len(kept)} duplicate rows")
        table = {name: [column[i] for i in kept] for name, column in table.items()}
    return Dataset.from_dict(table)


def fold_names(folds: Sequence[int]) -> set[str]:
    """Return folds as text, as they are compared with cells."""
    return {str(fold) for fold in folds}


def fold_name(cell: Any) -> str:
    """Normalize a cell of the column fold to the format of `fold_names`; "" if it is empty.

    An empty cell turns a column of integers into floats in many programs, so fold 1 becomes 1.0.
    """
    return re.sub(r"\.0+$", "", cell_to_text(cell).strip())


def check_fold_column(columns: Collection[str], dataset: str) -> None:
    """Check that a dataset has a column fold.

    Args:
        columns: Columns of the dataset.
        dataset: Name of the dataset in messages.

    Raises:
        DataError: If there is no column fold.
    """
    if "fold" not in columns:
        raise DataError(f"{dataset} has no column fold; it has: {', '.join(columns)}")


def check_folds(requested: set[str], available: Iterable[str], dataset: str) -> None:
    """Check that every requested fold has rows.

    Args:
        requested: Requested folds.
        available: Fold of every row, "" if it has none.
        dataset: Name of the dataset in messages.

    Raises:
        DataError: If a fold has no rows.
    """
    existing = set(available) - {""}
    absent = requested - existing
    if absent:
        raise DataError(
            f"{dataset} has no fold {', '.join(sorted(absent))}; it has {sorted(existing)}"
        )
