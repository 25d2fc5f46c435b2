"""What was computed once, looked up by what it depends on, and made where it is not there."""

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

CACHE_VERSION = 2  # raise it when what is computed for the same inputs changes
MIN_FREE_BYTES = 1 << 30  # what must stay free on the disk


def default_cache_dir() -> Path:
    """Where stores lie if nothing else is asked for."""
    given = os.environ.get("SOUNDPROMPT_CACHE")
    return Path(given) if given else Path("~/.cache/soundprompt").expanduser()


def digest(value: Any) -> str:
    """A short name that follows from a JSON value alone."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def state_dict_digest(state: Mapping[str, Any]) -> str:
    """A short name that follows from all tensors of a state dict, names and types included."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes: numpy knows no bfloat16.
        found.update(tensor.flatten().view(dtype=_uint8()).numpy().data)
    return found.hexdigest()[:32]


def _uint8() -> Any:
    import torch

    return torch.uint8


@dataclass(frozen=True)
class Cache:
    """A folder of stores.

    Attributes:
        folder: None keeps everything in memory, for this run only.
    """

    folder: Path | None = None

    @classmethod
    def from_options(cls, enabled: bool, folder: str | None) -> Cache:
        """The cache that the options --cache and --cache_dir ask for."""
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
        """What `create` makes; at once where it was made before from the same things.

        Several processes that ask for the same wait for the first. What was interrupted goes on.

        Args:
            kind: of what is kept, for people who look into the folder.
            about: all that the result depends on, as JSON.
            title: what is said.
            size_bytes: how large all of it will be.
            make: appends the rows that the store lacks.

        Raises:
            DataError: the disk has no room for it.
        """
        key = {"format": CACHE_VERSION, "name": name, **key}
        if self.folder is None:
            store = Store(None, key)
            print(f"{title}: about {format_bytes(estimate_bytes())} in memory", flush=True)
            create(store)
            store.finalize()
            return store
        from filelock import FileLock

        where = self.folder / f"{name}-{digest(key)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{where}.lock"):
            store = Store(where, key)
            if store.complete:
                print(f"{title}: {len(store)} from {where}", flush=True)
            else:
                self._announce(title, estimate_bytes(), store, where)
                create(store)
                store.finalize()
        # Who waited for it finds all there; only where making failed the lock must stay.
        with contextlib.suppress(OSError):
            Path(f"{where}.lock").unlink()
        return store

    def _announce(self, title: str, size: float, store: Store, where: Path) -> None:
        free = shutil.disk_usage(where).free
        resumed = f", going on after {len(store)}" if len(store) else ""
        print(f"{title}: about {format_bytes(size)}, kept in {where}{resumed}", flush=True)
        if size > free - MIN_FREE_BYTES:
            raise DataError(
                f"{title} need about {format_bytes(size)} and {self.folder} has {format_bytes(free)} free: give "
                "another --cache_dir, or --streaming, which keeps none, or --cache false"
            )


def format_bytes(size_bytes: float) -> str:
    """A size as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if size_bytes >= 10 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
