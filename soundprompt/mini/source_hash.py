"""Versions of the generators, kept beside what they made: nothing older is taken for it."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def source_hash(*parts: str) -> str:
    """A short name that follows from the source of parts of this package.

    Args:
        parts: modules or packages of `mini`, such as "sounds".

    Raises:
        FileNotFoundError: there is no such part.
    """
    found = hashlib.sha256()
    for part in parts:
        path = Path(__file__).parent / part
        files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:12]
