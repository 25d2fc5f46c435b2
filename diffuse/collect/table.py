"""metadata.csv files written row by row, so that an interrupted collection loses nothing."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from align.cli import argument_group

# Author and license of each sample.
PROVENANCE_COLUMNS = ("source_title", "source_author", "source_url", "license")


def add_output_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--output_dir` to the parser of a collector.

    Args:
        parser: Parser of a command.
    """
    argument_group(parser, "output").add_argument(
        "--output_dir", type=Path, required=True, metavar="FOLDER",
        help="Output directory; an interrupted collection resumes there.",
    )  # fmt: skip


class MetadataTable:
    """A metadata.csv file to append to.

    Attributes:
        folder: Folder of metadata.csv.
        path: Path of metadata.csv.
        keys: Keys of the existing rows.

    Args:
        folder: Folder of metadata.csv, created if it does not exist.
        columns: Its columns, including `key`.
        key: Column that identifies a row.

    Raises:
        ValueError: If the folder has a metadata.csv with other columns.
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
                    f"{self.path} must have the columns {', '.join(columns)}: give another "
                    "--output_dir"
                )
            self.keys = {row[key] for row in rows}

    def _drop_partial_line(self) -> None:
        """Remove the incomplete last line that an interrupted write leaves."""
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(self.path, data.rfind(b"\n") + 1)

    def _append(self, row: dict[str, str]) -> None:
        line = io.StringIO()
        # One line per row: an incomplete row has no line break.
        flat = {name: " ".join(str(value).split()) for name, value in row.items()}
        csv.DictWriter(line, self._columns, lineterminator="\n").writerow(flat)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(line.getvalue())
            file.flush()
            os.fsync(file.fileno())

    def add(self, row: dict[str, str], key: str) -> None:
        """Append a row whose files exist.

        Args:
            row: Values by column.
            key: Key of the row.
        """
        self._append(row)
        self.keys.add(key)


@dataclass
class CollectionStats:
    """Numbers of saved, existing and skipped samples.

    Attributes:
        saved: Number of saved samples.
        existing: Number of samples that already existed.
        skipped: Number of skipped samples by reason.
    """

    saved: int = 0
    existing: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def skip(self, what: str, kind: str, reason: str = "") -> None:
        """Count and print a skipped sample.

        Args:
            what: Name of the sample.
            kind: Reason that is counted.
            reason: Detailed reason that is printed instead of `kind`.
        """
        self.skipped[kind] += 1
        print(f"skipped: {what}: {reason or kind}", flush=True)

    def report(self, folder: Path) -> str:
        """Return a summary of the numbers, and the path of the results.

        Args:
            folder: Output directory.
        """
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.skipped.most_common())
        skipped = f", {self.skipped.total()} skipped ({kinds})" if kinds else ""
        return (
            f"{self.saved} saved, {self.existing} existing{skipped}.\n"
            f"Dataset saved to {folder}, listed in {folder / 'metadata.csv'}."
        )
