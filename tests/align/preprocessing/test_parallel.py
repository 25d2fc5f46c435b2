"""Worker processes use one thread each and leave the remaining cores to the parent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from align.preprocessing.parallel import read_rows


def threads() -> list[int]:
    """Return the number of threads of each numerical library in this process."""
    return [library["num_threads"] for library in threadpool_info()]


class ThreadCounter:
    """Reader that returns the thread counts of its process."""

    def read(self, i: int) -> list[int]:
        """Return the thread counts of the process that reads row i."""
        return threads()


def test_workers_use_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.get_num_threads()  # reads the environment on its first call
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "2")  # default of the worker processes
    reader: Any = ThreadCounter()
    with threadpool_limits(3):
        results = read_rows(reader, 4, 0, 2, worth=2)
        found = [next(results)]
        assert torch.get_num_threads() == 1  # two of three are used by the workers
        found += list(results)
        assert torch.get_num_threads() == 3
    assert len(found) == 4
    assert {n for result in found for n in result} == {1}
