"""Rows of arrays computed once and kept on disk in half precision, read by memory map.

A store is a folder: `key.json` says what its rows depend on, `values.bin` holds them end to end,
and `blocks.jsonl` notes block by block where each row lies, with a checksum. A block is noted only
when it is whole, so making that was interrupted goes on after the last one; what is damaged is
found by its checksum and made again.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

CHECKED_BYTES = 4 << 30  # of larger stores, only a change since they were finished is looked for
Row = list[np.ndarray]


def to_half(array: np.ndarray) -> np.ndarray:
    """An array in half precision.

    Raises:
        ValueError: a value is too large for it.
    """
    with np.errstate(over="ignore"):
        small = np.ascontiguousarray(array, np.float16)
    if not np.isfinite(small).all():
        maximum = float(np.abs(np.asarray(array, np.float64)).max())
        raise ValueError(f"half precision holds numbers up to 65504, and here is {maximum:g}")
    return small


class Store(Sequence[Row]):
    """Rows, each a list of half precision arrays; a sequence of what is there so far.

    Args:
        folder: where it lies; None keeps it in memory. One process at a time may open it while
            it is not complete: see `align.preprocessing.cache.Cache`.
        about: what its rows depend on, as JSON.

    Attributes:
        blocks: what is noted of each block: the shapes of its rows' arrays, and notes.
        complete: whether all rows are there.
    """

    def __init__(self, folder: Path | None, key: dict[str, Any]) -> None:
        self.folder, self.key = folder, key
        self.blocks: list[dict[str, Any]] = []
        self.complete = False
        self._memory: list[Row] = []
        self._places: list[tuple[int, list[list[int]]]] = []  # of each row: where, and its shapes
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
            self._place(block)

    def _valid_blocks(self, lines: list[str]) -> list[dict[str, Any]]:
        """The blocks up to the first that is not noted or not there as it was written."""
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
        """Leaves what is whole, ready to be gone on with."""
        end = self.blocks[-1]["end"] if self.blocks else 0
        with self._path("values.bin").open("ab") as file:
            file.truncate(end)
        lines = "".join(json.dumps(block) + "\n" for block in self.blocks)
        _replace(self._path("blocks.jsonl"), lines)
        _replace(self._path("about.json"), json.dumps(self.key, indent=1, default=str))

    def append(self, rows: Sequence[Row], **notes: Any) -> None:
        """Adds a block of rows, whole or not at all, with notes as JSON."""
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
        self._place(block)

    def columns(self) -> list[np.ndarray]:
        """The i-th arrays of all rows together, (N, ...) each; of a file, as they lie there.

        Raises:
            ValueError: rows are not all of the same shapes.
        """
        if len({str(shapes) for block in self.blocks for shapes in block["shapes"]}) != 1:
            raise ValueError("only rows of the same shapes have columns")
        if self.folder is None:
            return [np.stack(column) for column in zip(*self._memory, strict=True)]
        shapes = self._places[0][1]
        rows = self._mapped()[: len(self) * _bytes(shapes) // 2].reshape(len(self), -1)
        found, start = [], 0
        for shape in shapes:
            size = int(np.prod(shape))
            found.append(rows[:, start : start + size].reshape(len(self), *shape))
            start += size
        return found

    def finalize(self) -> None:
        """Notes that all rows are there."""
        self.complete = True
        if self.folder is None:
            return
        stat = self._path("values.bin").stat()
        last = {"rows": self._count(), "stamp": [stat.st_size, stat.st_mtime_ns]}
        with self._path("blocks.jsonl").open("a") as journal:
            journal.write(json.dumps(last) + "\n")

    def discard(self) -> None:
        """Removes everything."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name

    def _count(self) -> int:
        return sum(len(block["shapes"]) for block in self.blocks)

    def _place(self, block: dict[str, Any]) -> None:
        at = self._places[-1][0] + _bytes(self._places[-1][1]) if self._places else 0
        for shapes in block["shapes"]:
            self._places.append((at, shapes))
            at += _bytes(shapes)

    def __len__(self) -> int:
        return len(self._memory) if self.folder is None else len(self._places)

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> list[Row]: ...
    def __getitem__(self, row: int | slice) -> Row | list[Row]:
        """A row's arrays, float16, as they lie in the file: nothing is copied."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if self.folder is None:
            return self._memory[row]
        values = self._mapped()
        at, shapes = self._places[row]
        arrays, start = [], at // 2
        for shape in shapes:
            size = int(np.prod(shape))
            arrays.append(np.asarray(values[start : start + size]).reshape(shape))
            start += size
        return arrays

    def _mapped(self) -> np.ndarray:
        if self._values is None:
            # Private to this process: torch asks for arrays that could be written to.
            self._values = np.memmap(self._path("values.bin"), np.float16, "c")
        return self._values


class StoreView(Sequence[Row]):
    """Rows of a store in an order of their own, some of them perhaps several times.

    Args:
        store: where they are read from when they are asked for.
        which: of each row its place in the store.
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
        """A row's arrays, as the store has them."""
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
