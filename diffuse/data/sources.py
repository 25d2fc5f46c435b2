"""Sources of pairs: metadata tables, files with matching names, parquet files and the Hub."""

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

UNPAIRED_AUDIO = "audio files without an image"
UNPAIRED_IMAGE = "images without an audio file"
AMBIGUOUS_IMAGE = "audio files with several images of their name in other folders"
AMBIGUOUS_TEXT = "audio files with several caption files of their name in other folders"
UNCAPTIONED = f"pairs with an empty caption in {CAPTIONS}"
MISSING = "rows with missing files"
METADATA_COLUMNS = (
    "caption", "captions", "label", "fold", "foreground", "background", "ambience", "prompt",
    "scene",
)  # fmt: skip


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns of a table.

    Attributes:
        audio: Column with the audio. Defaults to file_name or audio.
        image: Column with the images.
        caption: Column with the captions.
        label: Column with the class labels.
    """

    audio: str | None = None
    image: str = "image"
    caption: str = "caption"
    label: str = "label"


def folder_rows(folder: Path, columns: ColumnNames, skipped: dict[str, list[str]]) -> Dataset:
    """Load the pairs of a folder from its table, its parquet files, or matching file names.

    Args:
        folder: Folder to load.
        columns: Names of the columns.
        skipped: Filled with the names of the entries that are left out, by reason.

    Raises:
        DataError: If the table cannot be read or lacks a column.
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
    """Fill missing captions from the captions.csv that `align.caption` writes.

    Rows with an empty caption there, such as those of unreadable images, are skipped.
    """
    path = folder / CAPTIONS
    if not path.is_file() or not len(rows):
        return rows
    generated = {line.get("file_name"): line.get("caption") for line in read_captions_file(path)[1]}
    existing: list[Any] = [None] * len(rows)
    for column in ("caption", "captions"):
        if column in rows.column_names:
            existing = [a or b for a, b in zip(existing, rows[column], strict=True)]
            rows = rows.remove_columns(column)
    names = [Path(path).relative_to(folder).as_posix() for path in rows["audio"]]
    texts = [[generated[name]] if name in generated else [] for name in names]
    found = [
        given if isinstance(given, list) and given else [given] if given else text
        for given, text in zip(existing, texts, strict=True)
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
        raise DataError(f"{what} cannot be read as a dataset: {root_cause(error)}") from error


def _check_columns(rows: Dataset, what: str, *columns: str) -> None:
    missing = [c for c in columns if c not in rows.column_names]
    if missing:
        raise DataError(
            f"{what} has no column {' and no column '.join(missing)}; "
            f"it has: {', '.join(rows.column_names)}"
        )


def _rename_columns(rows: Dataset, audio_column: str, columns: ColumnNames) -> Dataset:
    """Rename the columns to the names that the other modules use."""
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
    """Match audio and image files by base name, preferring files of the same folder.

    NAME.txt contains captions, one per line. The subfolder is the class, unless it is named after
    its contents.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    texts = FilePairs(files, (".txt",), (*AUDIO_ENDINGS, *IMAGE_ENDINGS))
    pairs = _match_files(folder, files, skipped)
    ambiguous = [s for s, i in pairs if texts.is_ambiguous(s) and texts.same_folder(i) is None]
    if ambiguous:
        skipped[AMBIGUOUS_TEXT] = [str(path.relative_to(folder)) for path in ambiguous]
    caption_files = [
        texts.same_folder(audio) or texts.same_folder(image) or texts.find(audio)
        for audio, image in pairs
    ]
    return Dataset.from_dict(
        {
            "audio": [str(audio) for audio, _ in pairs],
            "image": [str(image) for _, image in pairs],
            "captions": [
                _read_captions(text) if text is not None else [] for text in caption_files
            ],
            "label": [_class_of(audio, folder) for audio, _ in pairs],
        }
    )


def _match_files(
    folder: Path, files: Sequence[Path], skipped: dict[str, list[str]]
) -> list[tuple[Path, Path]]:
    """Match each audio file to an image; an image of another folder is used only once."""
    audio_files = FilePairs(files, AUDIO_ENDINGS, ())
    images = FilePairs(files, IMAGE_ENDINGS, AUDIO_ENDINGS)
    out: dict[str, list[str]] = {
        DUPLICATE: [
            f"{a.name} (duplicate of {b.name})"
            for a, b in (*audio_files.duplicates, *images.duplicates)
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
            out[DUPLICATE].append(f"{name} (duplicate of {first})")
    unpaired = [str(path.relative_to(folder)) for path in images.files if path not in own]
    skipped.update({reason: names for reason, names in out.items() if names})
    if unpaired:
        skipped[UNPAIRED_IMAGE] = unpaired
    return pairs


def _read_captions(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: write one caption per line") from error


def _class_of(path: Path, folder: Path) -> str:
    """Return the subfolder as the class, "" for the folder itself or a subfolder like audio."""
    parent = path.parent
    if parent == folder or parent.name.lower() in ("audio", "sounds", "recordings", "images"):
        return ""
    return parent.name


def hub_rows(name: str, split: str, columns: ColumnNames) -> Dataset:
    """Load the pairs of a Hub dataset.

    Args:
        name: Hub id.
        split: Split to load.
        columns: Names of the columns.

    Raises:
        DataError: If there is no such dataset, or it lacks a column.
    """
    return _undecoded_rows(open_hub(name, split, known=PAIR_DATASETS), name, columns)


def _undecoded_rows(rows: Dataset, what: str, columns: ColumnNames) -> Dataset:
    """Return rows with columns of audio and images that are not decoded yet."""
    audio_column = columns.audio or "audio"
    _check_columns(rows, what, audio_column, columns.image)
    return _rename_columns(disable_decoding(rows), audio_column, columns)
