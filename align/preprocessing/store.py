"""Rows of arrays on disk in half precision, memory-mapped.

A store is a folder: `about.json` contains the key of its inputs, `values.bin` the concatenated
rows, and `blocks.jsonl` the shapes, end offset and checksum of every block of rows. A block is
listed only once it is complete, so an interrupted store resumes after the last one. Damaged blocks
are detected by their checksum and recomputed.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

CHECKED_BYTES = 4 << 30  # larger stores are only checked for modification
Row = list[np.ndarray]


def to_half(array: np.ndarray) -> np.ndarray:
    """Convert an array to half precision.

    Args:
        array: Real array of any shape.

    Raises:
        ValueError: If a value exceeds the range of half precision.
    """
    with np.errstate(over="ignore"):
        small = np.ascontiguousarray(array, np.float16)
    if not np.isfinite(small).all():
        maximum = float(np.abs(np.asarray(array, np.float64)).max())
        raise ValueError(f"half precision represents values up to 65504, but one is {maximum:g}")
    return small


class Store(Sequence[Row]):
    """Sequence of the stored rows, each a list of half-precision arrays.

    Args:
        folder: Folder of the store; None keeps it in memory. Only one process at a time may open
            an incomplete store, see `align.preprocessing.cache.Cache`.
        key: Inputs of the rows, as JSON; a store with another key is overwritten.

    Attributes:
        blocks: Metadata of each block: shapes of its rows' arrays, and notes.
        complete: Whether all rows are stored.
    """

    def __init__(self, folder: Path | None, key: dict[str, Any]) -> None:
        self.folder, self.key = folder, key
        self.blocks: list[dict[str, Any]] = []
        self.complete = False
        self._memory: list[Row] = []
        # Byte offset and shapes of each row.
        self._locations: list[tuple[int, list[list[int]]]] = []
        self._values: np.ndarray | None = None
        if folder is not None:
            self._open(folder)

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            stored = json.loads((folder / "about.json").read_text())
            lines = (folder / "blocks.jsonl").read_text().splitlines()
        except (OSError, ValueError):
            stored, lines = None, []
        if stored != json.loads(json.dumps(self.key, default=str)):
            lines = []
        self.blocks = self._valid_blocks(lines)
        finished = bool(lines) and len(self.blocks) == len(lines) - 1
        self.complete = finished and _parsed(lines[-1]).get("rows") == self._count()
        if not self.complete:
            self._truncate()
        for block in self.blocks:
            self._add_locations(block)

    def _valid_blocks(self, lines: list[str]) -> list[dict[str, Any]]:
        """Return the blocks before the first incomplete or damaged one."""
        values = self._path("values.bin")
        size = values.stat().st_size if values.exists() else 0
        footer = _parsed(lines[-1]) if lines else {}
        stamp = [size, values.stat().st_mtime_ns if size else 0]
        trusted = footer.get("stamp") == stamp and size > CHECKED_BYTES
        blocks, start = [], 0
        data = np.memmap(values, np.uint8, "r") if size else np.zeros(0, np.uint8)
        for line in lines:
            block = _parsed(line)
            if "end" not in block or block["end"] > size:
                break
            if not trusted and zlib.crc32(data[start : block["end"]].data) != block["crc"]:
                break
            blocks.append(block)
            start = block["end"]
        return blocks

    def _truncate(self) -> None:
        """Truncate the files to the valid blocks, so that the store can be resumed."""
        end = self.blocks[-1]["end"] if self.blocks else 0
        with self._path("values.bin").open("ab") as file:
            file.truncate(end)
        lines = "".join(json.dumps(block) + "\n" for block in self.blocks)
        _replace(self._path("blocks.jsonl"), lines)
        _replace(self._path("about.json"), json.dumps(self.key, indent=1, default=str))

    def append(self, rows: Sequence[Row], **notes: Any) -> None:
        """Append a block of rows atomically.

        Args:
            rows: Rows of arrays.
            **notes: JSON values stored with the block.
        """
        shapes = [[list(array.shape) for array in row] for row in rows]
        if self.folder is None:
            self._memory += [[to_half(array) for array in row] for row in rows]
            self.blocks.append({"shapes": shapes, "notes": notes})
            return
        data = b"".join(to_half(array).tobytes() for row in rows for array in row)
        start = self.blocks[-1]["end"] if self.blocks else 0
        with self._path("values.bin").open("r+b") as file:
            file.seek(start)
            file.write(data)
        block = {"end": start + len(data), "crc": zlib.crc32(data), "shapes": shapes}
        self.blocks.append(block | {"notes": notes})
        with self._path("blocks.jsonl").open("a") as journal:
            journal.write(json.dumps(self.blocks[-1]) + "\n")
        self._values = None
        self._add_locations(block)

    def columns(self) -> list[np.ndarray]:
        """Return the i-th arrays of all rows as one array (N, ...) each, memory-mapped if on disk.

        Raises:
            ValueError: If the rows have different shapes.
        """
        if len({str(shapes) for block in self.blocks for shapes in block["shapes"]}) != 1:
            raise ValueError("columns needs rows of the same shapes")
        if self.folder is None:
            return [np.stack(column) for column in zip(*self._memory, strict=True)]
        shapes = self._locations[0][1]
        rows = self._mapped()[: len(self) * _bytes(shapes) // 2].reshape(len(self), -1)
        found, start = [], 0
        for shape in shapes:
            size = int(np.prod(shape))
            found.append(rows[:, start : start + size].reshape(len(self), *shape))
            start += size
        return found

    def finalize(self) -> None:
        """Mark the store as complete."""
        self.complete = True
        if self.folder is None:
            return
        stat = self._path("values.bin").stat()
        last = {"rows": self._count(), "stamp": [stat.st_size, stat.st_mtime_ns]}
        with self._path("blocks.jsonl").open("a") as journal:
            journal.write(json.dumps(last) + "\n")

    def discard(self) -> None:
        """Delete the store."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def _count(self) -> int:
        return sum(len(block["shapes"]) for block in self.blocks)

    def _add_locations(self, block: dict[str, Any]) -> None:
        at = self._locations[-1][0] + _bytes(self._locations[-1][1]) if self._locations else 0
        for shapes in block["shapes"]:
            self._locations.append((at, shapes))
            at += _bytes(shapes)

    def __len__(self) -> int:
        return len(self._memory) if self.folder is None else len(self._locations)

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> list[Row]: ...
    def __getitem__(self, row: int | slice) -> Row | list[Row]:
        """Return the float16 arrays of a row as views of the memory-mapped file."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if self.folder is None:
            return self._memory[row]
        values = self._mapped()
        at, shapes = self._locations[row]
        arrays, start = [], at // 2
        for shape in shapes:
            size = int(np.prod(shape))
            arrays.append(np.asarray(values[start : start + size]).reshape(shape))
            start += size
        return arrays

    def _mapped(self) -> np.ndarray:
        if self._values is None:
            # Copy-on-write, because torch requires writable arrays.
            self._values = np.memmap(self._path("values.bin"), np.float16, "c")
        return self._values


class StoreView(Sequence[Row]):
    """Selected rows of a store, read on access; rows may repeat.

    Args:
        store: Store to read from.
        indices: Index in the store of each row.
    """

    def __init__(self, store: Store, indices: Sequence[int]) -> None:
        self.store, self.indices = store, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> list[Row]: ...
    def __getitem__(self, row: int | slice) -> Row | list[Row]:
        """Return the arrays of a row."""
        if isinstance(row, slice):
            return [self.store[i] for i in self.indices[row]]
        return self.store[self.indices[row]]


def _bytes(shapes: Sequence[Sequence[int]]) -> int:
    return 2 * sum(int(np.prod(shape)) for shape in shapes)


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
