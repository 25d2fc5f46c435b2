"""Hash of the generators' source, stored with generated data to invalidate outdated caches."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def source_hash(*parts: str) -> str:
    """Hash the source of modules of this package.

    Args:
        parts: Modules or packages of `mini`, such as "sounds".

    Returns:
        Twelve hexadecimal digits.

    Raises:
        FileNotFoundError: There is no such module.
    """
    found = hashlib.sha256()
    for part in parts:
        path = Path(__file__).parent / part
        files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:12]
