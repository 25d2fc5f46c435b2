"""Augmentation of log-mel features, seeded by recording and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align.config.arguments import AugmentArguments


@dataclass(frozen=True)
class FeatureLayout:
    """How a backbone's features are laid out.

    Attributes:
        bins: mel bins; a feature row of k * bins holds k frames.
        log_scale: features are log_scale * ln(power).
        normalised: then brought to mean 0 and variance 1, bin by bin over a window's frames, and
            so once more after every change: a change of level alone is not heard, as in use.
    """

    num_mel_bins: int
    log_scale: float
    normalized: bool = False

    @property
    def per_db(self) -> float:
        """What one decibel adds to a feature."""
        return self.log_scale * np.log(10) / 10


def _mix(mel: np.ndarray, other: np.ndarray, layout: FeatureLayout, gain_db: float) -> np.ndarray:
    """Powers added: the sound of both at once, `other` changed by gain_db."""
    frames = min(len(mel), len(other))
    sum_ = mel.copy()
    background = other[:frames] + gain_db * layout.per_db
    sum_[:frames] = layout.log_scale * np.logaddexp(
        mel[:frames] / layout.log_scale, background / layout.log_scale
    )
    return sum_


def _normalize(mel: np.ndarray) -> np.ndarray:
    return (mel - mel.mean(0)) / np.sqrt(mel.var(0) + 1e-7)


def _shift_pitch(mel: np.ndarray, shift: int) -> np.ndarray:
    index = np.clip(np.arange(mel.shape[1]) - shift, 0, mel.shape[1] - 1)
    return mel[:, index]


def _random_equalizer(num_mel_bins: int, depth_db: float, rng: np.random.Generator) -> np.ndarray:
    knots = rng.uniform(-depth_db, depth_db, 5)
    return np.interp(np.linspace(0, 4, num_mel_bins), np.arange(5), knots)


def _spec_augment(
    mel: np.ndarray, arguments: AugmentArguments, rng: np.random.Generator
) -> np.ndarray:
    """SpecAugment (Park et al. 2019, arXiv 1904.08779): stretches set to the mean."""
    mean = mel.mean()
    for axis, count, ratio in (
        (0, arguments.time_masks, arguments.time_mask_ratio),
        (1, arguments.frequency_masks, arguments.frequency_mask_ratio),
    ):
        for _ in range(count):
            width = int(rng.uniform(0, ratio) * mel.shape[axis])
            start = int(rng.integers(0, mel.shape[axis] - width + 1))
            stretch = [slice(None), slice(None)]
            stretch[axis] = slice(start, start + width)
            mel[tuple(stretch)] = mean
    return mel


def augment(
    feature: np.ndarray,
    arguments: AugmentArguments,
    layout: FeatureLayout,
    rng: np.random.Generator,
    same: np.ndarray | None = None,
    other: np.ndarray | None = None,
) -> np.ndarray:
    """One window's features, changed in ways that leave what is heard the same.

    Args:
        feature: (T, k * bins).
        arguments: what is changed, and how far.
        scale: the features' layout.
        rng: source of all choices.
        same: another window of the same label, to be mixed in now and then.
        other: a window of another label, for the background.

    Returns:
        (T, k * bins) float32.
    """
    mel = feature.astype(np.float32).reshape(-1, layout.num_mel_bins).copy()
    if same is not None and rng.random() < arguments.mix_same_label_prob:
        rolled = np.roll(same.reshape(-1, layout.num_mel_bins), rng.integers(len(same)), 0)
        mel = _mix(mel, rolled, layout, rng.uniform(-9, 3))
    if other is not None and rng.random() < arguments.mix_other_label_prob:
        mel = _mix(mel, other.reshape(-1, layout.num_mel_bins), layout, rng.uniform(-25, -10))
    if arguments.time_shift:
        max_shift = int(arguments.time_shift * len(mel))
        mel = np.roll(mel, rng.integers(-max_shift, max_shift + 1), 0)
    if arguments.pitch_shift:
        shift = int(rng.integers(-arguments.pitch_shift, arguments.pitch_shift + 1))
        mel = _shift_pitch(mel, shift)
    if arguments.gain_db:
        mel += rng.uniform(-arguments.gain_db, arguments.gain_db) * layout.per_db
    if arguments.equalize_db:
        mel += _random_equalizer(layout.num_mel_bins, arguments.equalize_db, rng) * layout.per_db
    if layout.normalized:
        mel = _normalize(mel)
    return _spec_augment(mel, arguments, rng).reshape(feature.shape).astype(np.float32)
