"""metadata.csv, written a row at a time, so that a stopped collector loses nothing."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# Who made a recording and under what terms stays beside it.
PROVENANCE_COLUMNS = ("source_title", "source_author", "source_url", "license")


class MetadataTable:
    """A metadata.csv that grows.

    Args:
        folder: where metadata.csv lies or will lie; made if it does not exist.
        columns: its columns, `key` among them.
        key: the column by which a row is known to be there already.

    Raises:
        ValueError: the folder has a metadata.csv with other columns.
    """

    def __init__(self, folder: Path, columns: tuple[str, ...], key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "metadata.csv"
        self._columns = columns
        self.keys: set[str] = set()
        if self.path.exists():
            self._drop_partial_line()
        if not self.path.exists() or not self.path.stat().st_size:
            self._append(dict(zip(columns, columns, strict=True)))
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) != columns:
                raise ValueError(
                    f"{self.path} has other columns than this collector writes "
                    f"({', '.join(columns)}): give another folder"
                )
            self.keys = {row[key] for row in rows}

    def _drop_partial_line(self) -> None:
        """A kill in the middle of a write may leave half a line."""
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(self.path, data.rfind(b"\n") + 1)

    def _append(self, row: dict[str, str]) -> None:
        line = io.StringIO()
        # One line a row: half a row is then told from a whole one.
        flat = {name: " ".join(str(value).split()) for name, value in row.items()}
        csv.DictWriter(line, self._columns, lineterminator="\n").writerow(flat)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(line.getvalue())
            file.flush()
            os.fsync(file.fileno())

    def add(self, row: dict[str, str], key: str) -> None:
        """Appends a row whose files are all there."""
        self._append(row)
        self.keys.add(key)


@dataclass
class CollectionStats:
    """Counts what was saved, what was there already, and what was left out and why."""

    saved: int = 0
    existing: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def skip(self, what: str, kind: str, reason: str = "") -> None:
        """Names something that is left out; `kind` is what it is counted under."""
        self.skipped[kind] += 1
        print(f"left out: {what}: {reason or kind}", flush=True)

    def report(self, folder: Path) -> str:
        """One sentence of counts, and where the results are."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.skipped.most_common())
        missed = f"; left out {self.skipped.total()} ({kinds})" if kinds else ""
        return (
            f"{self.saved} saved, {self.existing} there already{missed}.\n"
            f"They are in {folder}, listed in {folder / 'metadata.csv'}."
        )
