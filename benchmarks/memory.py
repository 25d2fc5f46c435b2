"""Memory of this process: its peak, and what forward passes keep for backward passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MIB = 2**20


def resident(key: str) -> int:
    """Bytes of this process's memory by a key of /proc/self/status, such as VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def peak_above(call: Callable[[], None]) -> float:
    """MiB by which a call raises this process's peak resident memory above what it holds now."""

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = resident("VmRSS")
    call()
    return (resident("VmHWM") - before) / MIB


def anonymous_peak(call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call gives, and the most anonymous memory in bytes while it ran, seen every 2 ms.

    Pages of files that are mapped, which `peak_above` counts, are left out.
    """
    peak, over = resident("RssAnon"), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.002):
            peak = max(peak, resident("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = call()
    finally:
        over.set()
        watcher.join()
    return found, max(peak, resident("RssAnon"))


class SavedTensorCounter:
    """Counts the bytes that forward passes keep for backward passes, as long as they are kept.

    Args:
        weights: what is there anyway and does not count.
    """

    def __init__(self, weights: Iterable[Any]) -> None:
        self.now = self.peak = 0
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self._held: dict[int, list[int]] = {}

    def pack(self, tensor: Any) -> Any:
        """Saved-tensor hook; a storage that is kept twice counts once."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._weights:
            return _SavedTensor(tensor, None)
        count = self._held.setdefault(storage.data_ptr(), [0, storage.nbytes()])
        if not count[0]:
            self.now += count[1]
            self.peak = max(self.peak, self.now)
        count[0] += 1
        return _SavedTensor(tensor, self)

    def release(self, where: int) -> None:
        """Called when a kept tensor is let go."""
        count = self._held[where]
        count[0] -= 1
        if not count[0]:
            self.now -= count[1]
            del self._held[where]


class _SavedTensor:
    def __init__(self, tensor: Any, kept: SavedTensorCounter | None) -> None:
        # Detached: a node that kept its own output with its graph would never be let go.
        self.tensor, self._kept = tensor.detach(), kept
        self._where = tensor.untyped_storage().data_ptr()

    def __del__(self) -> None:
        if self._kept is not None:
            self._kept.release(self._where)
