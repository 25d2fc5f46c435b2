"""What the recordings of a data set are, told without reading all of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from align.preprocessing.cache import digest

PROBES = 8  # recordings whose content is read
PREFIX_BYTES = 1024


def probe_rows(count: int) -> list[int]:
    """The numbers of a few rows, spread evenly: one of fifty, at least one and at most eight."""
    probes = max(1, min(PROBES, count // 50))
    return [i * count // probes for i in range(probes)]


def audio_fingerprint(rows: Dataset, column: str = "audio") -> str:
    """A short name that follows from the recordings of a data set, or from what a column holds.

    Files are known by path, size and time of change. Recordings within a table are known by their
    names and sizes, and the content of a few of them; those that are made when they are read, by
    the columns that they are made from, and the sound of a few of them.
    """
    plain = rows.with_format(None)
    if column not in plain.column_names:
        columns = {name: list(plain[name]) for name in plain.column_names}
        return digest(["made", columns, _probe_contents(rows, column)])
    metadata = _column_metadata(plain, column)
    if "file" in metadata:
        return digest(["files", [file_fingerprint(path) for path in metadata["file"]]])
    return digest(["table", metadata, _probe_contents(rows, column)])


def clip_names(plain: Dataset) -> list[str]:
    """Where each recording came from; rows of one name have one recording.

    The name is the row's clip, where the data name it; else its path, else its row's number.
    Within a table, two may be called the same (dog/1.wav and sea/1.wav, of which only 1.wav was
    kept) and one may stand in several rows: they are told apart by their content.
    """
    if "clip" in plain.column_names:
        return list(plain["clip"])
    metadata = _column_metadata(plain, "audio") if "audio" in plain.column_names else {}
    numbers = [f"row {i + 1}" for i in range(len(plain))]
    paths = metadata.get("file") or metadata.get("path") or numbers
    names = [str(path or number) for path, number in zip(paths, numbers, strict=True)]
    if not metadata or "file" in metadata:
        return names
    known: dict[Any, str] = {}
    taken: set[str] = set()
    for i, key in _possible_duplicates(plain, metadata):
        name = names[i] if names[i] not in taken else f"{names[i]}, row {i + 1}"
        names[i] = known.setdefault((key, _content(plain[i]["audio"])), name)
        taken.add(names[i])
    return names


def _possible_duplicates(plain: Dataset, metadata: dict[str, list[Any]]) -> list[tuple[int, Any]]:
    """Rows that may have another row's recording or only its name, each with what it shares.

    Where nothing is called by a path, only what begins alike and is as long is looked at.
    """
    paths = metadata.get("path") or [None] * len(plain)
    if any(path is None for path in paths):
        columns = [*metadata.values(), *_column_metadata(plain, "audio", _prefixes).values()]
        keys: list[Any] = [digest(key) for key in zip(*columns, strict=True)]
    else:
        keys = paths
    times = Counter(keys)
    return [(i, key) for i, key in enumerate(keys) if times[key] > 1]


def _column_metadata(
    plain: Dataset, name: str, describe: Callable[[Any], Any] | None = None
) -> dict[str, list]:
    """Paths and sizes of what a column holds; bytes stay in the file that Arrow has mapped.

    Args:
        plain: rows that stay as Arrow has them.
        name: the column's.
        told: what is told of a column's parts in place of sizes.
    """
    describe = describe or _sizes
    column = plain.data.column(name)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        found = {"file": column}
    elif pa.types.is_struct(column.type):
        parts = [column.type.field(i).name for i in range(column.type.num_fields)]
        found = {part: describe(pc.struct_field(column, part)) for part in parts}
    else:
        found = {"size": describe(column)}
    if plain._indices is not None:  # rows were selected: only now, so that no sound is copied
        chosen = plain._indices.column(0)
        found = {name: part.take(chosen) for name, part in found.items()}
    return {name: part.to_pylist() for name, part in found.items()}


def _sizes(column: Any) -> Any:
    """The lengths of bytes or lists; anything else as it is."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pc.binary_length(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.list_value_length(column)
    return column


def _prefixes(column: Any) -> Any:
    """The first bytes of bytes; anything else as its size."""
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pc.binary_slice(column, 0, PREFIX_BYTES)
    return _sizes(column)


def _probe_contents(rows: Dataset, column: str) -> list[str]:
    """The content of a few rows of a column."""
    return [_content(rows[i][column]) for i in probe_rows(len(rows))]


def _content(audio: Any) -> str:
    """A name that follows from a recording as it stands in a row."""
    parts = audio.values() if isinstance(audio, dict) else [audio]
    content = hashlib.sha256()
    for part in parts:
        numbers = isinstance(part, np.ndarray | list)
        raw = part if isinstance(part, bytes) else str(part).encode()
        content.update(np.asarray(part).tobytes() if numbers else raw)
    return content.hexdigest()


def file_fingerprint(path: str) -> list[Any]:
    """A text, and size and time of change where it is the path of a file."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return [path]
    return [path, stat.st_size, stat.st_mtime_ns]
