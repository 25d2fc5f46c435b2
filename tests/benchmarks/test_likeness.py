"""The similarity benchmark: its statistics and table."""

from __future__ import annotations

import numpy as np

from benchmarks.likeness import COLUMNS, RATE, main, row, spectral_statistics


def hiss(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(5 * RATE).astype(np.float32)


def test_steady_noise_varies_little_and_independently() -> None:
    deviation, skewness, middle, low = spectral_statistics(hiss())
    assert deviation < 1.5
    assert abs(skewness) < 0.5
    assert abs(middle) < 0.2
    assert abs(low) < 0.2


def test_impacts_raise_all_bands() -> None:
    track = 0.05 * hiss(1)
    for start in np.random.default_rng(2).integers(RATE // 2, 4 * RATE, 12):
        track[start : start + 80] += hiss(int(start))[:80]
    deviation, skewness, middle, low = spectral_statistics(track)
    assert deviation > 2
    assert skewness > 2
    assert middle > 0.7
    assert low > 0.2


def test_spectral_statistics_are_independent_of_level() -> None:
    np.testing.assert_allclose(
        spectral_statistics(hiss()), spectral_statistics(0.01 * hiss()), rtol=1e-4
    )


def test_row_has_medians_and_middle_range() -> None:
    found = [np.full(4, float(i)) for i in range(11)]
    assert row("rain", "real", found) == "| rain | real |" + " 5.00 [1.00, 9.00] |" * 4


def test_command_compares_real_and_synthetic_clips(esc10, capsys) -> None:
    main(["--dataset", str(esc10), "--labels", "rain", "--count", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 3}
    assert [line.split(" | ")[1] for line in lines[2:]] == ["real", "synthetic"]
