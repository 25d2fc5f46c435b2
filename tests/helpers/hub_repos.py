"""Repositories of the mock Hub, and their file listings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

LARGE = (".safetensors", ".bin", ".png", ".parquet", ".wav")


@dataclass
class Repo:
    """A repository with its files and access settings."""

    files: dict[str, bytes]
    private: bool = False
    gated: bool = False
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        """A commit hash that depends on the files."""
        parts = [f"{name} {digest(data)}" for name, data in sorted(self.files.items())]
        return hashlib.sha1("\n".join(parts).encode()).hexdigest()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(name: str, data: bytes) -> dict[str, Any]:
    lfs = {"lfs": {"oid": digest(data), "size": len(data), "pointerSize": 130}}
    more = lfs if name.endswith(LARGE) else {}
    return {"type": "file", "path": name, "size": len(data), "oid": digest(data)[:40], **more}


def listed(files: dict[str, bytes], under: str, recursive: bool) -> list[dict[str, Any]]:
    """Return the entries of a folder of a repository."""
    start = f"{under}/" if under else ""
    below = [name for name in files if name.startswith(start)]
    folders = {str(parent) for name in below for parent in list(PurePosixPath(name).parents)[:-1]}
    folders = {folder for folder in folders if folder.startswith(start)}
    found = [{"type": "directory", "path": f, "size": 0, "oid": "0" * 40} for f in sorted(folders)]
    found += [entry(name, files[name]) for name in below]
    return [one for one in found if recursive or "/" not in one["path"].removeprefix(start)]
