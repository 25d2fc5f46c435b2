"""On-disk cache of stores, keyed by a digest of their inputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.data.errors import DataError
from align.preprocessing.store import Store

CACHE_VERSION = 2  # increment if results for the same inputs change
MIN_FREE_BYTES = 1 << 30  # disk space that must stay free


def default_cache_dir() -> Path:
    """Return the default cache directory, $SOUNDPROMPT_CACHE or ~/.cache/soundprompt."""
    given = os.environ.get("SOUNDPROMPT_CACHE")
    return Path(given) if given else Path("~/.cache/soundprompt").expanduser()


def digest(value: Any) -> str:
    """Return a short hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def state_dict_digest(state: Mapping[str, Any]) -> str:
    """Return a short hash of a state dict: names, data types, shapes and values."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, because NumPy has no bfloat16.
        found.update(tensor.flatten().view(dtype=_uint8()).numpy().data)
    return found.hexdigest()[:32]


def _uint8() -> Any:
    import torch

    return torch.uint8


@dataclass(frozen=True)
class Cache:
    """Folder of stores.

    Attributes:
        folder: Cache directory; None keeps everything in memory.
    """

    folder: Path | None = None

    @classmethod
    def from_options(cls, enabled: bool, folder: str | None) -> Cache:
        """Create the cache from the options --cache and --cache_dir."""
        if not enabled:
            return cls()
        return cls(Path(folder).expanduser() if folder else default_cache_dir())

    def get_or_create(
        self,
        name: str,
        key: dict[str, Any],
        title: str,
        estimate_bytes: Callable[[], float],
        create: Callable[[Store], None],
    ) -> Store:
        """Return the store for a key, creating or resuming it if it is incomplete.

        Concurrent processes with the same key wait for the first one.

        Args:
            name: Kind of content, as a prefix of the store's folder.
            key: All inputs of the result, as JSON.
            title: Title of messages.
            estimate_bytes: Function that returns the expected size of the store in bytes.
            create: Function that appends the missing rows to the store.

        Raises:
            DataError: If the disk has too little free space.
        """
        key = {"format": CACHE_VERSION, "name": name, **key}
        if self.folder is None:
            store = Store(None, key)
            print(f"{title}: about {format_bytes(estimate_bytes())} in memory", flush=True)
            create(store)
            store.finalize()
            return store
        from filelock import FileLock

        path = self.folder / f"{name}-{digest(key)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            store = Store(path, key)
            if store.complete:
                print(f"{title}: {len(store)} from {path}", flush=True)
            else:
                self._announce(title, estimate_bytes(), store, path)
                create(store)
                store.finalize()
        # Waiting processes find a complete store; only after a failure the lock file must stay.
        with contextlib.suppress(OSError):
            Path(f"{path}.lock").unlink()
        return store

    def _announce(self, title: str, size: float, store: Store, path: Path) -> None:
        free = shutil.disk_usage(path).free
        resumed = f", resuming after {len(store)}" if len(store) else ""
        print(f"{title}: about {format_bytes(size)}, cached in {path}{resumed}", flush=True)
        if size > free - MIN_FREE_BYTES:
            raise DataError(
                f"{title} need about {format_bytes(size)} and {self.folder} has "
                f"{format_bytes(free)} free: give another --cache_dir, or --streaming true, which "
                "caches nothing, or --cache false"
            )


def format_bytes(size_bytes: float) -> str:
    """Format a size in bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if size_bytes >= 10 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
