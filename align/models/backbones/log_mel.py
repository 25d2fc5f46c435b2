"""Small model over log-mel spectrograms, to train without a pretrained backbone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    BatchFeature,
    PretrainedConfig,
    PreTrainedModel,
    SequenceFeatureExtractor,
)
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from align.models.backbones.base import Backbone


class LogMelConfig(PretrainedConfig):
    """Configuration of a `LogMelModel`.

    Args:
        num_mel_bins: Number of mel bins of the features.
        hidden_size: H, width of the audio tokens.
        num_hidden_layers: Number of transformer layers.
        num_attention_heads: Number of attention heads per layer.
        channels: Channels of the first convolution; the second and third have two and four times
            as many.
        hidden_dropout: Dropout in the transformer.
        center_db: Level in decibels that is mapped to 0.
        scale_db: Difference in decibels that is mapped to 1.
    """

    model_type = "log_mel"

    def __init__(
        self,
        num_mel_bins: int = 64,
        hidden_size: int = 192,
        num_hidden_layers: int = 3,
        num_attention_heads: int = 4,
        channels: int = 16,
        hidden_dropout: float = 0.1,
        center_db: float = -30.0,
        scale_db: float = 20.0,
        **kwargs: Any,
    ) -> None:
        self.num_mel_bins = num_mel_bins
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.channels = channels
        self.hidden_dropout = hidden_dropout
        self.center_db = center_db
        self.scale_db = scale_db
        super().__init__(**kwargs)


@cache
def _filters(num_mel_bins: int, window: int, low: float, high: float, rate: int) -> np.ndarray:
    filters: np.ndarray = mel_filter_bank(
        num_frequency_bins=window // 2 + 1,
        num_mel_filters=num_mel_bins,
        min_frequency=low,
        max_frequency=high,
        sampling_rate=rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return filters


class LogMelFeatureExtractor(SequenceFeatureExtractor):
    """Converts waveforms to log-mel spectrograms, by default those of PANNs (Kong et al. 2019).

    Args:
        feature_size: Number of mel bins.
        sampling_rate: Sampling rate in Hz.
        padding_value: See `SequenceFeatureExtractor`.
        fft_window_size: Number of samples per frame.
        hop_length: Number of samples between frames.
        frequency_min: Frequency of the lowest bin in Hz.
        frequency_max: Frequency of the highest bin in Hz.
        window_s: Length of the audio window in seconds.
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
        """Spectrograms (T, F), float32 in decibels, of each waveform (n,).

        Raises:
            ValueError: The waveforms have another sampling rate.
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
                # Reflection padding requires a waveform longer than half a frame.
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


class DownsampleBlock(nn.Module):
    """A convolution that halves time and frequency and ignores masked frames."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps (N, C, T, F) and (N, T) to (N, C', T/2, F/2) and (N, T/2), rounded up."""
        x = self.conv(x.masked_fill(~mask[:, None, :, None], 0.0))
        x = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return nn.functional.gelu(x), mask[:, ::2]


class LogMelModel(PreTrainedModel):
    """Three convolutions and a small transformer over a log-mel spectrogram in decibels."""

    config_class = LogMelConfig
    base_model_prefix = "log_mel"
    main_input_name = "input_features"

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__(config)
        channels = [1, *(config.channels * 2**i for i in range(3))]
        self.stem = nn.ModuleList(
            DownsampleBlock(in_channels, out_channels)
            for in_channels, out_channels in pairwise(channels)
        )
        bands = -(-config.num_mel_bins // 8)
        width = config.hidden_size
        self.proj_in = nn.Linear(channels[-1] * bands, width)
        # Convolutional position embedding, as in wav2vec 2.0.
        self.position_conv = nn.Conv1d(width, width, 15, padding=7, groups=width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, config.num_attention_heads, 4 * width, config.hidden_dropout, "gelu",
                batch_first=True, norm_first=True,
            )
            for _ in range(config.num_hidden_layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keeps each module's own initialization."""

    def forward(
        self, input_features: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features (N, T, F) in decibels to audio tokens (N, T/8, H) and their mask."""
        own, mask = self.config, attention_mask
        x = ((input_features - own.center_db) / own.scale_db)[:, None]
        for block in self.stem:
            x, mask = block(x, mask)
        tokens = self.proj_in(x.transpose(1, 2).flatten(2)).masked_fill(~mask[..., None], 0.0)
        tokens = tokens + self.position_conv(tokens.transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=~mask)
        return self.norm(tokens), mask


class LogMelBackbone(Backbone):
    """The log-mel model: one token per 80 ms of a 10 s window; always trained as a whole."""

    model_type: ClassVar[str] = LogMelConfig.model_type
    log_scale: ClassVar[float] = 10 / np.log(10)  # decibels
    normalized: ClassVar[bool] = False

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = LogMelModel(config)

    @staticmethod
    def window_s(feature_extractor: LogMelFeatureExtractor) -> float:
        """Length of a window in seconds."""
        return feature_extractor.window_s

    @staticmethod
    def extract_features(
        feature_extractor: LogMelFeatureExtractor, windows: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Log-mel features (T, F), float32, of windows (n,) at the extractor's sampling rate."""
        found: list[np.ndarray] = feature_extractor(
            windows, sampling_rate=feature_extractor.sampling_rate
        )["input_features"]
        return found

    @property
    def token_width(self) -> int:
        """H, width of an audio token."""
        return int(self.config.hidden_size)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, from input to output."""
        return self.model.layers

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features (N, T, F) and mask (N, T) to audio tokens (N, S, H) and mask (N, S)."""
        tokens: tuple[torch.Tensor, torch.Tensor] = self.model(features, mask)
        return tokens

    def load(self, pretrained_model_name_or_path: str, config: PretrainedConfig) -> None:
        """Loads the weights of a checkpoint: a folder or a Hub id."""
        self.model = LogMelModel.from_pretrained(
            pretrained_model_name_or_path, config=self.config, dtype=torch.float32
        )


def untrained_log_mel(**options: Any) -> tuple[LogMelBackbone, LogMelFeatureExtractor]:
    """Builds an untrained log-mel backbone and its feature extractor.

    Args:
        **options: Overrides of the configuration; unknown ones are ignored.
    """
    config = LogMelConfig(**{k: v for k, v in options.items() if hasattr(LogMelConfig(), k)})
    feature_extractor = LogMelFeatureExtractor(feature_size=config.num_mel_bins)
    return LogMelBackbone(config), feature_extractor


AutoConfig.register(LogMelConfig.model_type, LogMelConfig)
AutoFeatureExtractor.register(LogMelConfig, LogMelFeatureExtractor)
