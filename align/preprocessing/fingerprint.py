"""Fingerprint the audio of a dataset without reading all of it."""

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

PROBES = 8  # maximum number of clips whose content is hashed
PREFIX_BYTES = 1024


def probe_rows(count: int) -> list[int]:
    """Return evenly spaced row indices: one in fifty, at least one and at most `PROBES`."""
    probes = max(1, min(PROBES, count // 50))
    return [i * count // probes for i in range(probes)]


def audio_fingerprint(rows: Dataset, column: str = "audio") -> str:
    """Return a fingerprint of the audio, or another column, of a dataset.

    Files are identified by path, size and modification time; audio embedded in a table by names,
    sizes and the content of a few clips; audio synthesized by a transform by its source columns
    and the samples of a few clips.

    Args:
        rows: Rows of the dataset.
        column: Column to fingerprint.
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
    """Return a name for each row's clip; rows with the same name have the same audio.

    The name is the column clip if it exists, else the path, else the row number. Audio embedded in
    a table may share a name (dog/1.wav and sea/1.wav are both stored as 1.wav) or occur in several
    rows, so equal names are compared by content.

    Args:
        plain: Rows without a format or transform.
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
    """Return the rows that may share their audio or only its name, each with the shared key.

    The key is the path, or the length and first bytes for audio without paths.
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
    """Return paths and sizes of a column's values; the bytes stay memory-mapped.

    Args:
        plain: Rows without a format or transform.
        name: Name of the column.
        describe: Function from an Arrow column to its description; sizes by default.
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
    if plain._indices is not None:  # applied last, so that no audio is copied
        chosen = plain._indices.column(0)
        found = {name: part.take(chosen) for name, part in found.items()}
    return {name: part.to_pylist() for name, part in found.items()}


def _sizes(column: Any) -> Any:
    """Return the lengths of binary or list values; anything else unchanged."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pc.binary_length(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.list_value_length(column)
    return column


def _prefixes(column: Any) -> Any:
    """Return the first bytes of binary values; sizes of anything else."""
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pc.binary_slice(column, 0, PREFIX_BYTES)
    return _sizes(column)


def _probe_contents(rows: Dataset, column: str) -> list[str]:
    """Hash the content of a few rows of a column."""
    return [_content(rows[i][column]) for i in probe_rows(len(rows))]


def _content(audio: Any) -> str:
    """Hash the audio of a row."""
    parts = audio.values() if isinstance(audio, dict) else [audio]
    content = hashlib.sha256()
    for part in parts:
        numbers = isinstance(part, np.ndarray | list)
        raw = part if isinstance(part, bytes) else str(part).encode()
        content.update(np.asarray(part).tobytes() if numbers else raw)
    return content.hexdigest()


def file_fingerprint(path: str) -> list[Any]:
    """Return a path with the size and modification time of its file, if it exists."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return [path]
    return [path, stat.st_size, stat.st_mtime_ns]
