"""A data set as rows of (recording, caption, label), and its licences where they are stated."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset, Value

from align.data.columns import Layout, Named, written
from align.data.errors import DataError
from align.data.licenses import kept_rows, told
from align.data.tables import ROW, open_folder, open_hub, read_table, table_file
from align.registry import DATASETS, lookup


def find(
    data: str,
    recording_column: str | None = None,
    caption_column: str = "caption",
    label_column: str = "label",
    licence_column: str | None = None,
    caption_template: str | None = None,
) -> tuple[Callable[[str], Dataset] | Path | str, Layout | None]:
    """What a data set's name stands for, and how its columns are to be read.

    Returns:
        A function of a split and None; or a folder, a table or a hub id and its layout.
        A data set known by name has columns of its own: see `given_columns`.
    """
    name, _, copy = data.partition("@")
    source = lookup(DATASETS, name)
    if isinstance(source, Named):
        layout = replace(source.layout, licence=licence_column)
        if caption_template is not None:
            layout = replace(layout, template=caption_template)
        return (Path(copy).expanduser() if copy else source.hub), layout
    if callable(source):
        return source, None
    where = Path(data).expanduser()
    there = where.is_dir() or table_file(where) is not None
    usual = "file_name" if table_file(where) and where.suffix != ".parquet" else "audio"
    layout = Layout(
        recording_column or usual, caption_column, label_column, licence_column, caption_template
    )
    return (where if there else data), layout


def given_columns(**columns: Any) -> dict[str, str]:
    """The columns that were named, by what they are: recording, caption, label."""
    named = {name: columns.get(f"{name}_column") for name in ("recording", "caption", "label")}
    return {name: column for name, column in named.items() if column}


def load_rows(
    data: str,
    split: str,
    *,
    folds: Sequence[int] | None = None,
    licences: Sequence[str] | None = None,
    **columns: Any,
) -> Dataset:
    """The rows of a data set.

    Args:
        data: a short name, or NAME@FOLDER for a copy of it; a folder with metadata.csv or
            metadata.jsonl, or such a table itself, whose column file_name is relative to it; or
            the hub id of a data set of data files.
        split: "train" or "test"; a folder has one set for both, told apart by `folds`.
        folds: keep only rows whose column "fold" is one of these.
        licences: keep only rows of these licences, as `licences.kept_rows` takes them.
        columns: as `find` takes them: recording_column (by default "file_name" or "audio"),
            caption_column, label_column, licence_column and caption_template.

    Returns:
        A Dataset with the columns recording (a path, or a dict as `align.audio.read` takes it),
        caption and label; clip, what names the recording, and licence where the data state them;
        and row, its number in the data as they lie, from one on.

    Raises:
        DataError: there is no such data set, or it lacks what is asked for.
    """
    source, layout = find(data, **columns)
    if layout is None:
        assert callable(source)
        return chosen(source(split), data, folds, licences)
    if isinstance(source, Path):
        raw = read_table(source) if source.is_file() else open_folder(source, _own(layout, split))
    else:
        assert isinstance(source, str)
        raw = open_hub(source, _own(layout, split))
    own = [name for name in raw.column_names if name != ROW]
    layout = layout.fitted(data, own, given_columns(**columns))
    if not len(raw):
        raise DataError(f"{data} has no rows")
    base = source if isinstance(source, Path) else None
    rows = _said(raw, data, layout)
    rows = chosen(rows, data, folds, licences)
    return _located(rows, data, base)


def _own(layout: Layout, split: str) -> str:
    return layout.splits.get(split, split)


def _said(raw: Dataset, data: str, layout: Layout) -> Dataset:
    """The recordings as they are, beside what is said of them; nothing is decoded or copied."""
    names = layout.light(raw.column_names)
    say = layout.sayer(raw.features, raw.column_names)
    light = raw.select_columns(names)
    table = [say(row) for row in light]
    numbers = list(raw[ROW]) if ROW in raw.column_names else list(range(1, len(raw) + 1))
    empty = [i for i, row in enumerate(table) if not row["caption"].strip()]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(table)} rows of {data} have no caption, the first is "
            f"row {numbers[empty[0]]}: write one, leave the row out, or let align.caption "
            "caption pictures"
        )
    rows = raw.select_columns([layout.recording])
    if layout.recording != "recording":
        rows = rows.rename_column(layout.recording, "recording")
    if "fold" in names:
        rows = rows.add_column("fold", [fold_name(fold) for fold in light["fold"]])
    for column in table[0]:
        rows = rows.add_column(column, [row[column] for row in table])
    return rows.add_column("row", numbers)


def chosen(
    rows: Dataset, data: str, folds: Sequence[int] | None, licences: Sequence[str] | None
) -> Dataset:
    """The rows of some folds and some licences; licences there are are told.

    Raises:
        DataError: no row is of those asked for.
    """
    if folds is not None:
        rows = keep_folds(rows, data, folds)
    if "fold" in rows.column_names:
        rows = rows.remove_columns("fold")
    plain = rows.with_format(None)  # makes no sound
    stated = list(plain["licence"]) if "licence" in plain.column_names else None
    if licences is not None:
        kept = kept_rows(stated, licences, data)
        rows = rows.select(kept)
        stated = [stated[i] for i in kept] if stated is not None else None
    if stated is not None:
        print(f"{data}: licences: {told(stated)}", flush=True)
    return rows


def keep_folds(rows: Dataset, data: str, folds: Sequence[int]) -> Dataset:
    """The rows whose column "fold" is one of `folds`.

    Raises:
        DataError: there is no such column, or a fold has no row.
    """
    check_column([name for name in rows.column_names if name != "row"], data)
    wanted = fold_names(folds)
    stated = [fold_name(fold) for fold in rows.with_format(None)["fold"]]
    check_folds(wanted, stated, data)
    return rows.select([i for i, fold in enumerate(stated) if fold in wanted])


def folder_of(base: Path | None) -> Path:
    """What the paths of recordings are relative to: a table's folder; of the hub's, where we are.

    Args:
        base: the table or folder they stand in; None for the hub.
    """
    return Path() if base is None else base.parent if base.is_file() else base


def _located(rows: Dataset, data: str, base: Path | None) -> Dataset:
    """Rows whose recordings are paths: relative to their table, there, and no two the same."""
    if rows.features["recording"] not in (Value("string"), Value("large_string")):
        return rows
    folder = folder_of(base)
    paths = [str(folder / str(name)) for name in rows["recording"]]
    missing = [path for path in paths if not Path(path).is_file()]
    if len(missing) == len(paths):
        raise DataError(f"none of the {len(paths)} files named in {data} is there: {missing[0]} …")
    table = {name: list(rows[name]) for name in rows.column_names} | {"recording": paths}
    keys = list(zip(paths, table["caption"], table["label"], strict=True))
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    if len(first) < len(keys):
        kept = sorted(first.values())
        print(f"{data}: {len(keys) - len(kept)} rows repeat an earlier one and are left out")
        table = {name: [column[i] for i in kept] for name, column in table.items()}
    return Dataset.from_dict(table)


def fold_names(folds: Sequence[int]) -> set[str]:
    """Folds as they stand in a table."""
    return {str(fold) for fold in folds}


def fold_name(cell: Any) -> str:
    """A cell of the column fold as `fold_names` has it, "" where it is empty.

    Programs that know numbers alone write 1.0 for the fold 1 of a column with an empty cell.
    """
    return re.sub(r"\.0+$", "", written(cell).strip())


def check_column(columns: Collection[str], data: str) -> None:
    """Refuses a data set that is not divided into folds.

    Raises:
        DataError: there is no column fold.
    """
    if "fold" not in columns:
        raise DataError(f"{data} has no column fold; it has: {', '.join(columns)}")


def check_folds(wanted: set[str], stated: Iterable[str], data: str) -> None:
    """Refuses folds that no row has.

    Args:
        wanted: those asked for.
        stated: of every row, "" where it is in none.
        data: the data's name.

    Raises:
        DataError: one is absent.
    """
    there = set(stated) - {""}
    absent = wanted - there
    if absent:
        raise DataError(f"{data} has no fold {', '.join(sorted(absent))}; it has {sorted(there)}")
