"""Augmentation of log-mel features, seeded by recording and epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align.config.arguments import AugmentArguments


@dataclass(frozen=True)
class Scale:
    """How a backbone's features are laid out.

    Attributes:
        bins: mel bins; a feature row of k * bins holds k frames.
        log_scale: features are log_scale * ln(power).
        normalised: then brought to mean 0 and variance 1, bin by bin over a window's frames, and
            so once more after every change: a change of level alone is not heard, as in use.
    """

    bins: int
    log_scale: float
    normalised: bool = False

    @property
    def per_db(self) -> float:
        """What one decibel adds to a feature."""
        return self.log_scale * np.log(10) / 10


def _mixed(mel: np.ndarray, other: np.ndarray, scale: Scale, gain_db: float) -> np.ndarray:
    """Powers added: the sound of both at once, `other` changed by gain_db."""
    frames = min(len(mel), len(other))
    sum_ = mel.copy()
    quiet = other[:frames] + gain_db * scale.per_db
    sum_[:frames] = scale.log_scale * np.logaddexp(
        mel[:frames] / scale.log_scale, quiet / scale.log_scale
    )
    return sum_


def _normalised(mel: np.ndarray) -> np.ndarray:
    return (mel - mel.mean(0)) / np.sqrt(mel.var(0) + 1e-7)


def _shifted_pitch(mel: np.ndarray, by: int) -> np.ndarray:
    index = np.clip(np.arange(mel.shape[1]) - by, 0, mel.shape[1] - 1)
    return mel[:, index]


def _equaliser(bins: int, depth_db: float, rng: np.random.Generator) -> np.ndarray:
    knots = rng.uniform(-depth_db, depth_db, 5)
    return np.interp(np.linspace(0, 4, bins), np.arange(5), knots)


def _masked(mel: np.ndarray, arguments: AugmentArguments, rng: np.random.Generator) -> np.ndarray:
    """SpecAugment (Park et al. 2019, arXiv 1904.08779): stretches set to the mean."""
    mean = mel.mean()
    for axis, count, share in (
        (0, arguments.time_masks, arguments.time_mask_share),
        (1, arguments.frequency_masks, arguments.frequency_mask_share),
    ):
        for _ in range(count):
            width = int(rng.uniform(0, share) * mel.shape[axis])
            start = int(rng.integers(0, mel.shape[axis] - width + 1))
            stretch = [slice(None), slice(None)]
            stretch[axis] = slice(start, start + width)
            mel[tuple(stretch)] = mean
    return mel


def augment(
    feature: np.ndarray,
    arguments: AugmentArguments,
    scale: Scale,
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
    mel = feature.astype(np.float32).reshape(-1, scale.bins).copy()
    if same is not None and rng.random() < arguments.mix_same:
        rolled = np.roll(same.reshape(-1, scale.bins), rng.integers(len(same)), 0)
        mel = _mixed(mel, rolled, scale, rng.uniform(-9, 3))
    if other is not None and rng.random() < arguments.mix_other:
        mel = _mixed(mel, other.reshape(-1, scale.bins), scale, rng.uniform(-25, -10))
    if arguments.time_shift:
        most = int(arguments.time_shift * len(mel))
        mel = np.roll(mel, rng.integers(-most, most + 1), 0)
    if arguments.pitch_shift:
        by = int(rng.integers(-arguments.pitch_shift, arguments.pitch_shift + 1))
        mel = _shifted_pitch(mel, by)
    if arguments.gain_db:
        mel += rng.uniform(-arguments.gain_db, arguments.gain_db) * scale.per_db
    if arguments.equalise_db:
        mel += _equaliser(scale.bins, arguments.equalise_db, rng) * scale.per_db
    if scale.normalised:
        mel = _normalised(mel)
    return _masked(mel, arguments, rng).reshape(feature.shape).astype(np.float32)
