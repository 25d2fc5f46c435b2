"""Load datasets as rows of (audio, caption, label): by short name, from a folder or the Hub."""

from __future__ import annotations

from align.data.errors import DataError
from align.data.loading import load_rows
from align.data.splits import (
    READ_OPTIONS,
    has_test_split,
    load_eval_dataset,
    load_extra_dataset,
    load_train_dataset,
    load_train_stream,
    overlap_note,
)
from align.data.streaming import Stream, load_stream
from align.data.tables import CAPTIONS, METADATA

__all__ = [
    "CAPTIONS",
    "METADATA",
    "READ_OPTIONS",
    "DataError",
    "Stream",
    "has_test_split",
    "load_eval_dataset",
    "load_extra_dataset",
    "load_rows",
    "load_stream",
    "load_train_dataset",
    "load_train_stream",
    "overlap_note",
]
