"""Data sets as rows of (recording, caption, label): by name, from a folder, or from the hub."""

from align.data.choice import (
    READ_BY,
    extra_rows,
    has_test_split,
    held_out_rows,
    overlap,
    training_rows,
    training_stream,
)
from align.data.error import DataError
from align.data.rows import load_rows
from align.data.stream import Stream, load_stream
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
