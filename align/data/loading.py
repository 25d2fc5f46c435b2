"""A data set as rows of (recording, caption, label), and its licences where they are stated."""

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
    """What a data set's name stands for, and how its columns are to be read.

    Returns:
        A function of a split and None; or a folder, a table or a hub id and its layout.
        A data set known by name has columns of its own: see `given_columns`.
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
    """The columns that were named, by what they are: recording, caption, label."""
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
    """The rows of a data set.

    Args:
        data: a short name, or NAME@FOLDER for a copy of it; a folder with metadata.csv or
            metadata.jsonl, or such a table itself, whose column file_name is relative to it; or
            the hub id of a data set of data files.
        split: "train" or "test"; a folder has one set for both, told apart by `folds`.
        folds: keep only rows whose column "fold" is one of these.
        licences: keep only rows of these licences, as `licenses.filter_by_license` takes them.
        columns: as `resolve_dataset` takes them: recording_column (by default "file_name" or "audio"),
            caption_column, label_column, licence_column and caption_template.

    Returns:
        A Dataset with the columns recording (a path, or a dict as `align.audio.read` takes it),
        caption and label; clip, what names the recording, and licence where the data state them;
        and row, its number in the data as they lie, from one on.

    Raises:
        DataError: there is no such data set, or it lacks what is asked for.
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
    """The recordings as they are, beside what is said of them; nothing is decoded or copied."""
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
            f"row {numbers[empty[0]]}: write one, leave the row out, or let align.caption "
            "caption pictures"
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
    """The rows of some folds and some licences; licences there are are told.

    Raises:
        DataError: no row is of those asked for.
    """
    if folds is not None:
        rows = keep_folds(rows, dataset, folds)
    if "fold" in rows.column_names:
        rows = rows.remove_columns("fold")
    plain = rows.with_format(None)  # makes no sound
    stated = list(plain["license"]) if "license" in plain.column_names else None
    if licenses is not None:
        kept = filter_by_license(stated, licenses, dataset)
        rows = rows.select(kept)
        stated = [stated[i] for i in kept] if stated is not None else None
    if stated is not None:
        print(f"{dataset}: licences: {license_summary(stated)}", flush=True)
    return rows


def keep_folds(rows: Dataset, dataset: str, folds: Sequence[int]) -> Dataset:
    """The rows whose column "fold" is one of `folds`.

    Raises:
        DataError: there is no such column, or a fold has no row.
    """
    check_fold_column([name for name in rows.column_names if name != "row"], dataset)
    requested = fold_names(folds)
    stated = [fold_name(fold) for fold in rows.with_format(None)["fold"]]
    check_folds(requested, stated, dataset)
    return rows.select([i for i, fold in enumerate(stated) if fold in requested])


def root_folder(root: Path | None) -> Path:
    """What the paths of recordings are relative to: a table's folder; of the hub's, where we are.

    Args:
        base: the table or folder they stand in; None for the hub.
    """
    return Path() if root is None else root.parent if root.is_file() else root


def _resolve_paths(rows: Dataset, dataset: str, root: Path | None) -> Dataset:
    """Rows whose recordings are paths: relative to their table, there, and no two the same."""
    if rows.features["audio"] not in (Value("string"), Value("large_string")):
        return rows
    folder = root_folder(root)
    paths = [str(folder / str(name)) for name in rows["audio"]]
    missing = [path for path in paths if not Path(path).is_file()]
    if len(missing) == len(paths):
        raise DataError(
            f"none of the {len(paths)} files named in {dataset} is there: {missing[0]} …"
        )
    table = {name: list(rows[name]) for name in rows.column_names} | {"audio": paths}
    keys = list(zip(paths, table["caption"], table["label"], strict=True))
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    if len(first) < len(keys):
        kept = sorted(first.values())
        print(f"{dataset}: {len(keys) - len(kept)} rows repeat an earlier one and are left out")
        table = {name: [column[i] for i in kept] for name, column in table.items()}
    return Dataset.from_dict(table)


def fold_names(folds: Sequence[int]) -> set[str]:
    """Folds as they stand in a table."""
    return {str(fold) for fold in folds}


def fold_name(cell: Any) -> str:
    """A cell of the column fold as `fold_names` has it, "" where it is empty.

    Programs that know numbers alone write 1.0 for the fold 1 of a column with an empty cell.
    """
    return re.sub(r"\.0+$", "", cell_to_text(cell).strip())


def check_fold_column(columns: Collection[str], dataset: str) -> None:
    """Refuses a data set that is not divided into folds.

    Raises:
        DataError: there is no column fold.
    """
    if "fold" not in columns:
        raise DataError(f"{dataset} has no column fold; it has: {', '.join(columns)}")


def check_folds(requested: set[str], available: Iterable[str], dataset: str) -> None:
    """Refuses folds that no row has.

    Args:
        wanted: those asked for.
        stated: of every row, "" where it is in none.
        data: the data's name.

    Raises:
        DataError: one is absent.
    """
    existing = set(available) - {""}
    absent = requested - existing
    if absent:
        raise DataError(
            f"{dataset} has no fold {', '.join(sorted(absent))}; it has {sorted(existing)}"
        )
