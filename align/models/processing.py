"""From recordings to a batch of features: whole recordings in windows, padded and masked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from align.audio.files import AudioError, AudioWarning
from align.audio.waveform import SILENCE_THRESHOLD
from align.audio.waveform import windows as window_stream
from align.models.backbones.loading import backbone_class


@dataclass(frozen=True)
class AudioProcessor:
    """How a backbone hears: its feature extractor, window by window.

    Attributes:
        model_type: the backbone's, a key of `backbones.KINDS`.
        extractor: its transformers feature extractor.
        max_windows: windows heard of one recording; what lies beyond is left out, with a warning.
    """

    model_type: str
    feature_extractor: Any
    max_windows: int

    @property
    def window_s(self) -> float:
        """Seconds a window."""
        return backbone_class(self.model_type).window_s(self.feature_extractor)

    @property
    def num_mel_bins(self) -> int:
        """Mel bins of a frame; a row of features may be several frames side by side."""
        own = self.feature_extractor
        return int(getattr(own, "num_mel_bins", None) or own.feature_size)

    def spectrogram(self, feature: np.ndarray) -> np.ndarray:
        """A window's features (T, F) as a frame a row, (T * F / bins, bins)."""
        return feature.reshape(-1, self.num_mel_bins)

    def extract_features(self, audio: Any, sampling_rate: int | None = None) -> list[np.ndarray]:
        """The features of a recording's windows, each (T, F).

        Args:
            recording: anything `align.audio.read` takes.
            sampling_rate: of a recording given as bare numbers.

        Raises:
            AudioError: it cannot be read or has nothing to hear.
        """
        rate = self.feature_extractor.sampling_rate
        stream = window_stream(audio, rate, self.window_s, sampling_rate=sampling_rate)
        windows = [window.samples for window in islice(stream, self.max_windows)]
        if next(stream, None) is not None:
            limit = self.max_windows * self.window_s
            warnings.warn(
                f"only the first {limit:.0f} s of a longer recording are heard",
                AudioWarning,
                stacklevel=2,
            )
        elif len(windows) > 1 and len(windows[-1]) < 0.1 * self.window_s * rate:
            windows.pop()  # a rest too short to say anything would weigh as much as a window
        _check_not_silent(windows)
        return backbone_class(self.model_type).extract_features(self.feature_extractor, windows)


def _check_not_silent(windows: Sequence[np.ndarray]) -> None:
    # A recording cut at max_windows never reaches the end of its stream, where silence is found.
    if max(float(np.abs(w).max(initial=0.0)) for w in windows) < SILENCE_THRESHOLD:
        raise AudioError("the recording is silent: there is nothing to hear in it")


def pad(rows: Sequence[Sequence[np.ndarray]]) -> dict[str, torch.Tensor]:
    """A batch of recordings' features, each a list of (T, F), as tensors.

    Returns:
        features: (B, W, T, F), zero where padded.
        features_mask: (B, W, T) bool, true where heard.
    """
    windows = max(len(row) for row in rows)
    frames = max(len(f) for row in rows for f in row)
    width = rows[0][0].shape[1]
    features = torch.zeros(len(rows), windows, frames, width)
    mask = torch.zeros(len(rows), windows, frames, dtype=torch.bool)
    for b, row in enumerate(rows):
        for w, feature in enumerate(row):
            features[b, w, : len(feature)] = torch.from_numpy(np.asarray(feature, np.float32))
            mask[b, w, : len(feature)] = True
    return {"features": features, "features_mask": mask}
