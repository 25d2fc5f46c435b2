"""Audio to batches of features: whole clips in windows, padded and masked."""

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
    """Extracts a backbone's features from audio, window by window.

    Attributes:
        model_type: The backbone's model type, a key of `BACKBONE_CLASSES`.
        feature_extractor: The backbone's transformers feature extractor.
        max_windows: Maximum number of windows per clip; longer audio is truncated with a warning.
    """

    model_type: str
    feature_extractor: Any
    max_windows: int

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""
        return backbone_class(self.model_type).window_s(self.feature_extractor)

    @property
    def num_mel_bins(self) -> int:
        """Number of mel bins per frame; a row of features may contain several frames."""
        own = self.feature_extractor
        return int(getattr(own, "num_mel_bins", None) or own.feature_size)

    def spectrogram(self, feature: np.ndarray) -> np.ndarray:
        """Reshapes a window's features (T, F) to one frame per row, (T * F / bins, bins)."""
        return feature.reshape(-1, self.num_mel_bins)

    def extract_features(self, audio: Any, sampling_rate: int | None = None) -> list[np.ndarray]:
        """Extracts the features (T, F) of each window of a clip.

        Args:
            audio: Anything `align.audio.read` accepts.
            sampling_rate: Sampling rate of a clip given as an array.

        Raises:
            AudioError: The clip cannot be read or is silent.
        """
        rate = self.feature_extractor.sampling_rate
        stream = window_stream(audio, rate, self.window_s, sampling_rate=sampling_rate)
        windows = [window.samples for window in islice(stream, self.max_windows)]
        if next(stream, None) is not None:
            limit = self.max_windows * self.window_s
            warnings.warn(
                f"audio is truncated to its first {limit:.0f} s (max_windows)",
                AudioWarning,
                stacklevel=2,
            )
        elif len(windows) > 1 and len(windows[-1]) < 0.1 * self.window_s * rate:
            windows.pop()  # a short remainder would have the weight of a whole window
        _check_not_silent(windows)
        return backbone_class(self.model_type).extract_features(self.feature_extractor, windows)


def _check_not_silent(windows: Sequence[np.ndarray]) -> None:
    # A clip truncated at max_windows does not reach the stream's own check for silence.
    if max(float(np.abs(w).max(initial=0.0)) for w in windows) < SILENCE_THRESHOLD:
        raise AudioError("the audio is silent: give a clip with sound")


def pad(rows: Sequence[Sequence[np.ndarray]]) -> dict[str, torch.Tensor]:
    """Pads the features of several clips, each a list of (T, F), to a batch of tensors.

    Returns:
        features: (B, W, T, F), zero for padding.
        features_mask: (B, W, T) bool, false for padding.
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
