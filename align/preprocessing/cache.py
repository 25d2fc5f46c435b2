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

FORMAT = 2  # raise it when what is computed for the same inputs changes
SPARE_BYTES = 1 << 30  # what must stay free on the disk


def default_folder() -> Path:
    """Where stores lie if nothing else is asked for."""
    given = os.environ.get("SOUNDPROMPT_CACHE")
    return Path(given) if given else Path("~/.cache/soundprompt").expanduser()


def digest(value: Any) -> str:
    """A short name that follows from a JSON value alone."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of_weights(state: Mapping[str, Any]) -> str:
    """A short name that follows from all tensors of a state dict, names and types included."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes: numpy knows no bfloat16.
        found.update(tensor.flatten().view(dtype=_byte()).numpy().data)
    return found.hexdigest()[:32]


def _byte() -> Any:
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
    def of(cls, enabled: bool, folder: str | None) -> Cache:
        """The cache that the options --cache and --cache_dir ask for."""
        if not enabled:
            return cls()
        return cls(Path(folder).expanduser() if folder else default_folder())

    def made(
        self,
        kind: str,
        about: dict[str, Any],
        title: str,
        size_bytes: Callable[[], float],
        make: Callable[[Store], None],
    ) -> Store:
        """What `make` makes; at once where it was made before from the same things.

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
        about = {"format": FORMAT, "kind": kind, **about}
        if self.folder is None:
            store = Store(None, about)
            print(f"{title}: about {human(size_bytes())} in memory", flush=True)
            make(store)
            store.seal()
            return store
        from filelock import FileLock

        where = self.folder / f"{kind}-{digest(about)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{where}.lock"):
            store = Store(where, about)
            if store.complete:
                print(f"{title}: {len(store)} from {where}", flush=True)
            else:
                self._announce(title, size_bytes(), store, where)
                make(store)
                store.seal()
        # Who waited for it finds all there; only where making failed the lock must stay.
        with contextlib.suppress(OSError):
            Path(f"{where}.lock").unlink()
        return store

    def _announce(self, title: str, size: float, store: Store, where: Path) -> None:
        free = shutil.disk_usage(where).free
        begun = f", going on after {len(store)}" if len(store) else ""
        print(f"{title}: about {human(size)}, kept in {where}{begun}", flush=True)
        if size > free - SPARE_BYTES:
            raise DataError(
                f"{title} need about {human(size)} and {self.folder} has {human(free)} free: give "
                "another --cache_dir, or --streaming, which keeps none, or --cache false"
            )


def human(size_bytes: float) -> str:
    """A size as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if size_bytes >= 10 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
