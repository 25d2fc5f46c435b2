"""Processes that read and hear: one thread each, and the cores that are left for who asks them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from align.preprocessing.parallel import read_rows


def threads() -> list[int]:
    """The threads of each library that computes in this process."""
    return [library["num_threads"] for library in threadpool_info()]


class Counting:
    """Reads no pair: tells of the process that it is asked in."""

    def read(self, i: int) -> list[int]:
        """The threads of row i's reader."""
        return threads()


def test_a_worker_computes_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.get_num_threads()  # which reads the environment when it is first asked
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "2")  # what a worker would start with, left alone
    reader: Any = Counting()
    with threadpool_limits(3):
        answers = read_rows(reader, 4, 0, 2, worth=2)
        found = [next(answers)]
        assert torch.get_num_threads() == 1  # of three, two are the workers'
        found += list(answers)
        assert torch.get_num_threads() == 3
    assert len(found) == 4
    assert {n for answer in found for n in answer} == {1}
