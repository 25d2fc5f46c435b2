"""Log-mel spectrograms in decibels: the features of the log-mel front end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function


@cache
def _filters(bins: int, window: int, low: float, high: float, rate: int) -> np.ndarray:
    filters: np.ndarray = mel_filter_bank(
        num_frequency_bins=window // 2 + 1,
        num_mel_filters=bins,
        min_frequency=low,
        max_frequency=high,
        sampling_rate=rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return filters


class LogMelFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms to log-mel spectrograms, by default as PANNs hear (Kong et al. 2019).

    Args:
        feature_size: mel bins.
        sampling_rate: in Hz.
        padding_value: as `SequenceFeatureExtractor` has it.
        fft_window_size: samples a frame.
        hop_length: samples from frame to frame.
        frequency_min: of the lowest bin, in Hz.
        frequency_max: of the highest bin, in Hz.
        window_s: seconds of sound that the model hears at once.
    """

    model_input_names = ["input_features"]

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 32_000,
        padding_value: float = 0.0,
        fft_window_size: int = 1024,
        hop_length: int = 320,
        frequency_min: float = 50.0,
        frequency_max: float = 14_000.0,
        window_s: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.fft_window_size = fft_window_size
        self.hop_length = hop_length
        self.frequency_min = frequency_min
        self.frequency_max = frequency_max
        self.window_s = window_s

    def __call__(
        self, raw_speech: Sequence[np.ndarray], sampling_rate: int | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Spectrograms, (T, F) float32 in decibels for each waveform (n,).

        Raises:
            ValueError: the waveforms have another sample rate.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(
                f"the waveforms have {sampling_rate} Hz; resample to {self.sampling_rate} Hz"
            )
        filters = _filters(
            self.feature_size, self.fft_window_size, self.frequency_min, self.frequency_max,
            self.sampling_rate,
        )  # fmt: skip
        window = window_function(self.fft_window_size, "hann")
        found = [
            spectrogram(
                # Reflected at its ends, a waveform must be longer than half a frame.
                np.pad(waveform, (0, max(0, self.fft_window_size - len(waveform)))),
                window,
                self.fft_window_size,
                self.hop_length,
                power=2.0,
                mel_filters=filters,
                mel_floor=1e-8,
                log_mel="dB",
                min_value=1e-8,
            )
            for waveform in raw_speech
        ]
        return BatchFeature({"input_features": [f.T.astype(np.float32) for f in found]})
