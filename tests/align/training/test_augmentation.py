"""Augmentation: the effect of each option, and its seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from align.config.arguments import AugmentArguments
from align.training.augmentation import FeatureLayout, augment

BINS, FRAMES = 16, 40
CLAP = FeatureLayout(BINS, 10 / np.log(10))  # decibels
W2V = FeatureLayout(BINS, 1.0)  # natural logarithms of power

OPTIONS: dict[str, Any] = {
    "time_shift": 0.5, "pitch_shift": 3, "gain_db": 9.0, "equalize_db": 6.0, "time_masks": 2,
    "frequency_masks": 2, "mix_same_label_prob": 1.0, "mix_other_label_prob": 1.0,
}  # fmt: skip


def features(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-30, 8, (FRAMES, BINS)).astype(np.float32)


def changed(seed: int, layout: FeatureLayout = CLAP, **options: Any) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return augment(features(), AugmentArguments(**options), layout, rng, features(1), features(2))


def differences(seed: int, layout: FeatureLayout = CLAP, **options: Any) -> np.ndarray:
    return changed(seed, layout, **options).astype(np.float64) - features()


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_changes_features(option: str) -> None:
    arguments = {option: OPTIONS[option]}
    assert AugmentArguments(**arguments).active
    results = [changed(seed, **arguments) for seed in range(5)]
    assert any(not np.array_equal(result, features()) for result in results)
    assert any(not np.array_equal(result, results[0]) for result in results[1:])
    for seed, result in enumerate(results):
        assert np.array_equal(result, changed(seed, **arguments))
        assert result.shape == (FRAMES, BINS) and result.dtype == np.float32


def test_all_options_are_covered() -> None:
    ratios = {"time_mask_ratio", "frequency_mask_ratio"}
    assert set(vars(AugmentArguments())) == set(OPTIONS) | ratios


def test_defaults_change_nothing() -> None:
    assert not AugmentArguments().active
    for seed in range(5):
        assert np.array_equal(changed(seed), features())


def test_augment_does_not_modify_its_inputs() -> None:
    given, same, other = features(), features(1), features(2)
    augment(given, AugmentArguments(**OPTIONS), CLAP, np.random.default_rng(0), same, other)
    for i, feature in enumerate((given, same, other)):
        assert np.array_equal(feature, features(i))


def test_gain_is_in_decibels() -> None:
    assert pytest.approx(1.0) == CLAP.per_db
    assert pytest.approx(np.log(10) / 10) == W2V.per_db
    gains = []
    for seed in range(40):
        in_db = differences(seed, CLAP, gain_db=9.0)
        in_nats = differences(seed, W2V, gain_db=9.0)
        assert np.ptp(in_db) < 1e-4  # one gain for the whole window
        gains.append(in_db.mean())
        # The same gain is the same change of power on both scales.
        assert 10 ** (in_db.mean() / 10) == pytest.approx(np.exp(in_nats.mean()), rel=1e-4)
    assert -9 <= min(gains) < -7 and 7 < max(gains) <= 9


def test_equalizer_is_smooth_and_bounded() -> None:
    for seed in range(10):
        by_bin = differences(seed, equalize_db=6.0)
        assert np.ptp(by_bin, axis=0).max() < 1e-4  # the same at all times
        assert np.ptp(by_bin.mean(0)) > 0.1 and np.abs(by_bin).max() <= 6 + 1e-4
        assert np.abs(np.diff(by_bin.mean(0))).max() <= 12 * 4 / (BINS - 1) + 1e-4


def test_time_shift_rotates_within_its_limit() -> None:
    shifts = set()
    for seed in range(60):
        result = changed(seed, time_shift=0.1)
        fits = [k for k in range(-4, 5) if np.array_equal(result, np.roll(features(), k, 0))]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert shifts == set(range(-4, 5))


def test_pitch_shift_moves_bins() -> None:
    shifts = set()
    for seed in range(60):
        result = changed(seed, pitch_shift=2)
        padded = np.pad(features(), ((0, 0), (2, 2)), mode="edge")
        moved = {k: padded[:, 2 - k : 2 - k + BINS] for k in range(-2, 3)}
        fits = [k for k, expected in moved.items() if np.array_equal(result, expected)]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert shifts == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize(("axis", "name"), [(0, "time"), (1, "frequency")])
def test_masks_stay_within_their_ratio(axis: int, name: str) -> None:
    widths = []
    for seed in range(80):
        options = {f"{name}_masks": 1, f"{name}_mask_ratio": 0.25}
        result = changed(seed, **options)
        touched = np.flatnonzero((result != features()).any(1 - axis))
        widths.append(len(touched))
        if len(touched):
            assert np.ptp(touched) == len(touched) - 1  # contiguous
            assert np.allclose(np.take(result, touched, axis), features().mean(), atol=1e-4)
    size = features().shape[axis]
    assert size * 0.25 - 2 <= max(widths) < size * 0.25


@pytest.mark.parametrize(
    ("option", "low", "high"),
    [("mix_same_label_prob", -9.0, 3.0), ("mix_other_label_prob", -25.0, -10.0)],
)
@pytest.mark.parametrize("layout", [CLAP, W2V])
def test_mixing_adds_power(option: str, low: float, high: float, layout: FeatureLayout) -> None:
    steady = np.broadcast_to(features(1)[0], (FRAMES, BINS)) * 0.3  # so that no rotation shows
    arguments = AugmentArguments(**{option: 1.0})
    loudness = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        result = augment(features() * 0.3, arguments, layout, rng, steady, steady)
        before = np.exp(features().astype(np.float64) * 0.3 / layout.log_scale)
        after = np.exp(result.astype(np.float64) / layout.log_scale)
        share = (after - before) / np.exp(steady.astype(np.float64) / layout.log_scale)
        clear = after > 1.02 * before  # elsewhere the difference is lost in rounding
        assert clear.any()
        in_db = 10 * np.log10(share[clear])
        assert np.ptp(in_db) < 0.05
        loudness.append(in_db.mean())
    assert low - 0.01 <= min(loudness) < low + 3 and high - 3 < max(loudness) <= high + 0.01


def test_mixing_has_the_given_probability() -> None:
    mixed = [
        not np.array_equal(changed(s, mix_same_label_prob=0.3), features()) for s in range(400)
    ]
    assert 0.22 < np.mean(mixed) < 0.38


def test_stacked_frames_are_split() -> None:
    """Wav2Vec2-BERT puts two frames of mel bins in one row."""
    stacked = features().reshape(FRAMES // 2, 2 * BINS)
    for option, value in OPTIONS.items():
        arguments = AugmentArguments(**{option: value})
        rng = np.random.default_rng(3)
        steady = np.zeros_like(stacked)
        result = augment(stacked, arguments, W2V, rng, steady, steady)
        rng = np.random.default_rng(3)
        steady = steady.reshape(FRAMES, BINS)
        flat = augment(features(), arguments, W2V, rng, steady, steady)
        assert np.allclose(result, flat.reshape(stacked.shape), atol=1e-5), option


def test_shorter_clip_can_be_mixed_in() -> None:
    short = np.zeros((7, BINS), np.float32)
    arguments = AugmentArguments(mix_other_label_prob=1.0)
    result = augment(features(), arguments, CLAP, np.random.default_rng(0), None, short)
    assert (result[:7] > features()[:7]).all() and np.array_equal(result[7:], features()[7:])


def test_normalized_features_stay_normalized() -> None:
    rng = np.random.default_rng(0)
    feature = rng.normal(3, 2, (50, BINS)).astype(np.float32)
    layout = FeatureLayout(BINS, 1.0, normalized=True)
    plain = (feature - feature.mean(0)) / feature.std(0)
    loud = augment(feature, AugmentArguments(gain_db=20, equalize_db=9), layout, rng)
    assert np.allclose(loud, plain, atol=1e-4)
    other = rng.normal(3, 2, (50, BINS)).astype(np.float32)
    mixed = augment(feature, AugmentArguments(mix_same_label_prob=1.0), layout, rng, same=other)
    assert not np.allclose(mixed, plain, atol=0.1)
    assert np.allclose(mixed.mean(0), 0, atol=1e-4) and np.allclose(mixed.std(0), 1, atol=1e-3)
