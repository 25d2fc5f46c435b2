"""The benchmark of targets: that both ways are what they say, and its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.caching import LENGTH, WIDTH
from benchmarks.memory import anonymous_peak
from benchmarks.targets import MODES, as_table, measure_in_process, write_table

CAPTIONS = 512
HELD = 4 * CAPTIONS * LENGTH * WIDTH / 2**30


def test_one_way_holds_all_targets_and_the_other_none(tmp_path: Path) -> None:
    path = tmp_path / "embeds.npy"
    write_table(path, CAPTIONS, 0)
    assert np.load(path, mmap_mode="r").shape == (CAPTIONS, LENGTH, WIDTH)
    found = {way: measure_in_process(way, path, 2, 0) for way in MODES}
    assert found["held"]["held"] > 0.8 * HELD > 0.1 * HELD > found["read"]["held"]
    assert all(one["peak"] >= one["held"] for one in found.values())
    assert all(min(one["step"], one["targets"]) > 0 for one in found.values())
    lines = as_table(found).splitlines()
    assert [line.split()[1] for line in lines[2:]] == list(MODES)
    assert lines[3].endswith("| 1.000 |")


def test_the_peak_is_seen_though_it_is_let_go() -> None:
    size = 2**28

    def call() -> int:
        return len(np.ones(size, np.uint8))

    found, peak = anonymous_peak(call)
    _, after = anonymous_peak(lambda: None)
    assert found == size and peak - after > 0.9 * size
