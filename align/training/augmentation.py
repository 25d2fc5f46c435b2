"""Augmentation of log-mel features, seeded by clip and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align.config.arguments import AugmentArguments


@dataclass(frozen=True)
class FeatureLayout:
    """Layout of a backbone's features.

    Attributes:
        num_mel_bins: Number of mel bins. A feature row of size k * num_mel_bins has k frames.
        log_scale: Features are log_scale * ln(power).
        normalized: Whether each bin is normalized to mean 0 and variance 1 over the frames of a
            window, also after augmentation. A change of gain then has no effect, as at inference.
    """

    num_mel_bins: int
    log_scale: float
    normalized: bool = False

    @property
    def per_db(self) -> float:
        """Difference of a feature per decibel."""
        return self.log_scale * np.log(10) / 10


def _mix(mel: np.ndarray, other: np.ndarray, layout: FeatureLayout, gain_db: float) -> np.ndarray:
    """Mix two log-mel spectrograms by adding powers, with a gain of `gain_db` on `other`."""
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
    """Set random time and frequency masks to the mean (SpecAugment, arXiv 1904.08779)."""
    mean = mel.mean()
    for axis, count, ratio in (
        (0, arguments.time_masks, arguments.time_mask_ratio),
        (1, arguments.frequency_masks, arguments.frequency_mask_ratio),
    ):
        for _ in range(count):
            width = int(rng.uniform(0, ratio) * mel.shape[axis])
            start = int(rng.integers(0, mel.shape[axis] - width + 1))
            mask = [slice(None), slice(None)]
            mask[axis] = slice(start, start + width)
            mel[tuple(mask)] = mean
    return mel


def augment(
    feature: np.ndarray,
    arguments: AugmentArguments,
    layout: FeatureLayout,
    rng: np.random.Generator,
    same: np.ndarray | None = None,
    other: np.ndarray | None = None,
) -> np.ndarray:
    """Augment the features of one window.

    Args:
        feature: Features of shape (T, k * num_mel_bins).
        arguments: Augmentation options.
        layout: Layout of the features.
        rng: Random generator.
        same: Window with the same label to mix in, with probability `mix_same_label_prob`.
        other: Window with another label to mix in as background, with probability
            `mix_other_label_prob`.

    Returns:
        Augmented features of shape (T, k * num_mel_bins), float32.
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
