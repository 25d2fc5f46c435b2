"""Data sets as rows of (recording, caption, label): by name, from a folder, or from the hub."""

from __future__ import annotations

from align.data.errors import DataError
from align.data.loading import load_rows
from align.data.splits import (
    READ_BY,
    extra_rows,
    has_test_split,
    held_out_rows,
    overlap,
    training_rows,
    training_stream,
)
from align.data.streaming import Stream, load_stream
from align.data.tables import CAPTIONS, METADATA

__all__ = [
    "CAPTIONS",
    "METADATA",
    "READ_BY",
    "DataError",
    "Stream",
    "extra_rows",
    "has_test_split",
    "held_out_rows",
    "load_rows",
    "load_stream",
    "overlap",
    "training_rows",
    "training_stream",
]
