"""Memory of the process: its peak, and the tensors saved for backward passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MIB = 2**20


def resident(key: str) -> int:
    """Read a memory size of the process in bytes.

    Args:
        key: Key of /proc/self/status, such as VmRSS.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def peak_above(call: Callable[[], None]) -> float:
    """Measure the peak resident memory of a call in MiB, above the present memory.

    Args:
        call: Function to measure.
    """
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    call()
    return (resident("VmHWM") - before) / MIB


def anonymous_peak(call: Callable[[], Any]) -> tuple[Any, int]:
    """Measure the peak anonymous memory of a call, sampled every 2 ms.

    Unlike `peak_above`, it does not count memory-mapped files.

    Args:
        call: Function to measure.

    Returns:
        The result of the call, and the peak in bytes.
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
    """Counts the bytes of the tensors that are saved for backward passes, while they exist.

    Args:
        weights: Tensors that are not counted.
    """

    def __init__(self, weights: Iterable[Any]) -> None:
        self.now = self.peak = 0
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self._held: dict[int, list[int]] = {}

    def pack(self, tensor: Any) -> Any:
        """Pack hook of `saved_tensors_hooks`; a storage that is saved twice counts once.

        Args:
            tensor: Tensor to save.
        """
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._weights:
            return _SavedTensor(tensor, None)
        count = self._held.setdefault(storage.data_ptr(), [0, storage.nbytes()])
        if not count[0]:
            self.now += count[1]
            self.peak = max(self.peak, self.now)
        count[0] += 1
        return _SavedTensor(tensor, self)

    def release(self, address: int) -> None:
        """Count a tensor as released.

        Args:
            address: Address of its storage.
        """
        count = self._held[address]
        count[0] -= 1
        if not count[0]:
            self.now -= count[1]
            del self._held[address]


class _SavedTensor:
    def __init__(self, tensor: Any, kept: SavedTensorCounter | None) -> None:
        # Detached, because a node that references its own output would never be released.
        self.tensor, self._kept = tensor.detach(), kept
        self._address = tensor.untyped_storage().data_ptr()

    def __del__(self) -> None:
        if self._kept is not None:
            self._kept.release(self._address)
