"""Wav2Vec2-BERT backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from transformers import (
    PretrainedConfig,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from align.models.backbones.base import Backbone


class W2vBertBackbone(Backbone):
    """Wav2Vec2-BERT; every unmasked output frame is an audio token.

    Windows have 10 seconds, or the extractor's `window_s`. Padding is masked in training and at
    inference. If the checkpoint has an adapter, a little padding leaks into the last token of a
    short window, since transformers does not mask the adapter's strided convolutions.
    """

    model_type: ClassVar[str] = "wav2vec2-bert"
    log_scale: ClassVar[float] = 1.0
    normalized: ClassVar[bool] = True  # by the extractor, per bin
    # Kaldi, whose features these are, dithers by one step of 16-bit audio. Digital zeros in cut or
    # padded files are far below any room's noise floor, however, and the extractor's normalization
    # then compresses the rest of the clip: so dither is raised to 60 dB below the peak.
    DITHER: ClassVar[float] = 2.0**-15
    NOISE_FLOOR: ClassVar[float] = 1e-3

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Wav2Vec2BertModel(config)

    @staticmethod
    def window_s(feature_extractor: SeamlessM4TFeatureExtractor) -> float:
        """Length of a window in seconds."""
        return float(getattr(feature_extractor, "window_s", 10.0))

    @classmethod
    def extract_features(
        cls, feature_extractor: SeamlessM4TFeatureExtractor, windows: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Log-mel features (T, F), float32, of windows (n,) at the extractor's sampling rate.

        Deterministic dither is added, 60 dB below the window's peak and at least one step of 16-bit
        audio.
        """
        rows = []
        # The extractor needs a frame (25 ms) and two stacks of frames to normalize over.
        min_samples = int(0.1 * feature_extractor.sampling_rate)
        for window in windows:
            filled = np.pad(window, (0, max(0, min_samples - len(window))))
            noise = np.random.default_rng(0).standard_normal(len(filled)).astype(np.float32)
            floor = max(cls.DITHER, cls.NOISE_FLOOR * float(np.max(np.abs(filled))))
            mel = feature_extractor(
                filled + np.float32(floor) * noise,
                sampling_rate=feature_extractor.sampling_rate,
                return_tensors="np",
            )["input_features"]
            rows.append(np.asarray(mel[0], np.float32))
        return rows

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, from input to output."""
        return self.model.encoder.layers

    @property
    def token_width(self) -> int:
        """H, width of an audio token."""
        own = self.config
        return int((own.add_adapter and own.output_hidden_size) or own.hidden_size)

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features (N, T, F) and mask (N, T) to audio tokens (N, S, H) and mask (N, S)."""
        tokens = self.model(input_features=features, attention_mask=mask.long()).last_hidden_state
        if not self.config.add_adapter:
            return tokens, mask
        # The adapter's convolutions shorten the mask as they shorten the sequence.
        lengths, kernel = mask.sum(1), self.config.adapter_kernel_size
        for _ in range(self.config.num_adapter_layers):
            lengths = (lengths + 2 * (kernel // 2) - kernel) // self.config.adapter_stride + 1
        return tokens, torch.arange(tokens.shape[1], device=mask.device) < lengths[:, None]

    def load(self, pretrained_model_name_or_path: str, config: PretrainedConfig) -> None:
        """Loads the weights of a checkpoint: a folder or a Hub id."""
        self.model = Wav2Vec2BertModel.from_pretrained(
            pretrained_model_name_or_path, config=self.config, dtype=torch.float32
        )
