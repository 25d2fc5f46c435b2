"""Where pairs come from: tables, base names, VGGSound's list, the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from align.data.columns import cells_to_text
from align.data.errors import DataError, root_cause
from align.data.pairing import AUDIO_ENDINGS, IMAGE_ENDINGS, FilePairs
from align.data.tables import (
    CAPTIONS,
    METADATA,
    disable_decoding,
    open_hub,
    read_captions_file,
    read_table,
)
from align.registry import PAIR_DATASETS
from diffuse.data.vggsound import DUPLICATE

UNPAIRED_AUDIO = "recordings without an image"
UNPAIRED_IMAGE = "images without a audio"
AMBIGUOUS_IMAGE = "recordings with no image beside them and several of their name in other folders"
AMBIGUOUS_TEXT = "captions whose texts lie in several other folders"
UNCAPTIONED = f"pairs with an empty caption in {CAPTIONS}"
MISSING = "rows whose files are not there"
METADATA_COLUMNS = (
    "caption", "captions", "label", "fold", "foreground", "background", "ambience", "prompt",
    "scene",
)  # fmt: skip


@dataclass(frozen=True)
class ColumnNames:
    """What a table's columns are called; `recording` is file_name or audio by default."""

    audio: str | None = None
    image: str = "image"
    caption: str = "caption"
    label: str = "label"


def folder_rows(folder: Path, columns: ColumnNames, skipped: dict[str, list[str]]) -> Dataset:
    """The pairs of a folder: by its table, by its parquet files, else by base names.

    Raises:
        DataError: its table cannot be read or lacks a column.
    """
    for name in METADATA:
        if (folder / name).is_file():
            rows = _table_rows(folder, name, columns, skipped)
            return _add_generated_captions(rows, folder, skipped)
    parquet = sorted(map(str, folder.rglob("*.parquet")))
    if parquet:
        rows = _load_rows("parquet", str(folder), data_files=parquet, split="train")
        return _undecoded_rows(rows, str(folder), columns)
    return _add_generated_captions(_paired_rows(folder, skipped), folder, skipped)


def _add_generated_captions(rows: Dataset, folder: Path, skipped: dict[str, list[str]]) -> Dataset:
    """The rows, with what `align.caption` wrote into captions.csv where they have no caption.

    Rows that have an empty one there, such as where an image could not be read, are left out.
    """
    path = folder / CAPTIONS
    if not path.is_file() or not len(rows):
        return rows
    made = {line.get("file_name"): line.get("caption") for line in read_captions_file(path)[1]}
    own: list[Any] = [None] * len(rows)
    for column in ("caption", "captions"):
        if column in rows.column_names:
            own = [a or b for a, b in zip(own, rows[column], strict=True)]
            rows = rows.remove_columns(column)
    names = [Path(path).relative_to(folder).as_posix() for path in rows["audio"]]
    texts = [[made[name]] if name in made else [] for name in names]
    found = [
        given if isinstance(given, list) and given else [given] if given else text
        for given, text in zip(own, texts, strict=True)
    ]
    empty = [name for name, texts in zip(names, found, strict=True) if texts == [""]]
    if empty:
        skipped[UNCAPTIONED] = empty
    kept = [i for i, texts in enumerate(found) if texts != [""]]
    return rows.add_column("captions", found).select(kept)


def _load_rows(kind: str, what: str, **options: Any) -> Dataset:
    try:
        return load_dataset(kind, **options)
    except Exception as error:
        raise DataError(f"{what} cannot be read as a data set: {root_cause(error)}") from error


def _check_columns(rows: Dataset, what: str, *columns: str) -> None:
    missing = [c for c in columns if c not in rows.column_names]
    if missing:
        raise DataError(
            f"{what} has no column {' and no column '.join(missing)}; "
            f"it has: {', '.join(rows.column_names)}"
        )


def _rename_columns(rows: Dataset, audio_column: str, columns: ColumnNames) -> Dataset:
    """The rows with the names that all else knows them by."""
    names = {
        audio_column: "audio",
        columns.image: "image",
        columns.caption: "caption",
        columns.label: "label",
    }
    kept = [c for c in rows.column_names if c in names or c in METADATA_COLUMNS]
    rows = cells_to_text(rows.select_columns(kept), ["fold", columns.label])
    return rows.rename_columns(
        {old: new for old, new in names.items() if old in kept and old != new}
    )


def _table_rows(
    folder: Path, name: str, columns: ColumnNames, skipped: dict[str, list[str]]
) -> Dataset:
    rows = read_table(folder / name)
    audio_column = columns.audio or "file_name"
    _check_columns(rows, str(folder / name), audio_column, columns.image)
    rows = _rename_columns(rows, audio_column, columns)
    kept, seen = [], set()
    for i, pair in enumerate(zip(rows["audio"], rows["image"], strict=True)):
        files = [folder / str(part) for part in pair]
        absent = [str(part) for part, file in zip(pair, files, strict=True) if not file.is_file()]
        if absent:
            skipped.setdefault(MISSING, []).append(" and ".join(absent))
        elif pair in seen:
            skipped.setdefault(DUPLICATE, []).append(f"{pair[0]} with {pair[1]}")
        else:
            seen.add(pair)
            kept.append(i)
    rows = rows.select(kept)
    for column in ("audio", "image"):
        paths = [str(folder / str(part)) for part in rows[column]]
        rows = rows.remove_columns(column).add_column(column, paths)
    return rows


def _paired_rows(folder: Path, skipped: dict[str, list[str]]) -> Dataset:
    """Recordings and images that have the same base name, those of one folder first.

    Beside them may lie NAME.txt, with captions, one a line. A subfolder that is not called after
    what it holds names the class.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    texts = FilePairs(files, (".txt",), (*AUDIO_ENDINGS, *IMAGE_ENDINGS))
    pairs = _match_files(folder, files, skipped)
    unclear = [s for s, i in pairs if texts.is_ambiguous(s) and texts.same_folder(i) is None]
    if unclear:
        skipped[AMBIGUOUS_TEXT] = [str(path.relative_to(folder)) for path in unclear]
    beside = [
        texts.same_folder(audio) or texts.same_folder(image) or texts.find(audio)
        for audio, image in pairs
    ]
    return Dataset.from_dict(
        {
            "audio": [str(audio) for audio, _ in pairs],
            "image": [str(image) for _, image in pairs],
            "captions": [_read_captions(text) if text is not None else [] for text in beside],
            "label": [_class_of(audio, folder) for audio, _ in pairs],
        }
    )


def _match_files(
    folder: Path, files: Sequence[Path], skipped: dict[str, list[str]]
) -> list[tuple[Path, Path]]:
    """Each recording and its image; an image in another folder goes to one recording only."""
    audio_files, images = (
        FilePairs(files, AUDIO_ENDINGS, ()),
        FilePairs(files, IMAGE_ENDINGS, AUDIO_ENDINGS),
    )
    out: dict[str, list[str]] = {
        DUPLICATE: [
            f"{a.name} beside {b.name}" for a, b in (*audio_files.duplicates, *images.duplicates)
        ]
    }
    own = {
        image: audio
        for audio in audio_files.files
        if (image := images.same_folder(audio)) is not None
    }
    pairs = []
    for audio in audio_files.files:
        image, name = images.find(audio), str(audio.relative_to(folder))
        if image is None:
            reason = AMBIGUOUS_IMAGE if images.is_ambiguous(audio) else UNPAIRED_AUDIO
            out.setdefault(reason, []).append(name)
        elif own.setdefault(image, audio) is audio:
            pairs.append((audio, image))
        else:
            first = own[image].relative_to(folder)
            out[DUPLICATE].append(f"{name} beside {first}")
    alone = [str(path.relative_to(folder)) for path in images.files if path not in own]
    skipped.update({reason: names for reason, names in out.items() if names})
    if alone:
        skipped[UNPAIRED_IMAGE] = alone
    return pairs


def _read_captions(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: write captions there, one a line") from error


def _class_of(path: Path, folder: Path) -> str:
    """The class by the subfolder, "" in the folder itself or one that says only what it holds."""
    parent = path.parent
    if parent == folder or parent.name.lower() in ("audio", "sounds", "recordings", "images"):
        return ""
    return parent.name


def hub_rows(name: str, split: str, columns: ColumnNames) -> Dataset:
    """The pairs of a data set that the hub serves.

    Raises:
        DataError: there is none, or it lacks a column.
    """
    return _undecoded_rows(open_hub(name, split, known=PAIR_DATASETS), name, columns)


def _undecoded_rows(rows: Dataset, what: str, columns: ColumnNames) -> Dataset:
    """Rows with columns of audio and images, neither of them decoded yet."""
    audio_column = columns.audio or "audio"
    _check_columns(rows, what, audio_column, columns.image)
    return _rename_columns(disable_decoding(rows), audio_column, columns)
