"""The target benchmark: memory of both modes, and its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.caching import LENGTH, WIDTH
from benchmarks.memory import anonymous_peak
from benchmarks.targets import MODES, as_table, measure_in_process, write_table

CAPTIONS = 512
HELD = 4 * CAPTIONS * LENGTH * WIDTH / 2**30


def test_only_in_memory_mode_holds_the_targets(tmp_path: Path) -> None:
    path = tmp_path / "embeds.npy"
    write_table(path, CAPTIONS, 0)
    assert np.load(path, mmap_mode="r").shape == (CAPTIONS, LENGTH, WIDTH)
    found = {mode: measure_in_process(mode, path, 2, 0) for mode in MODES}
    assert found["in memory"]["held"] > 0.8 * HELD > 0.1 * HELD > found["memory-mapped"]["held"]
    assert all(one["peak"] >= one["held"] for one in found.values())
    assert all(min(one["step"], one["targets"]) > 0 for one in found.values())
    lines = as_table(found).splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == list(MODES)
    assert lines[3].endswith("| 1.000 |")


def test_anonymous_peak_includes_released_memory() -> None:
    size = 2**28

    def call() -> int:
        return len(np.ones(size, np.uint8))

    found, peak = anonymous_peak(call)
    _, after = anonymous_peak(lambda: None)
    assert found == size and peak - after > 0.9 * size
