"""Wav2Vec2-BERT as a backbone."""

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
    """Wav2Vec2-BERT: every output frame that was heard is an audio token.

    Windows are 10 seconds, or what the extractor's `window_s` says; padding is masked in training
    and in use alike. Only where the checkpoint has an adapter does a short window's last token
    hear a little of the padding after it: transformers does not mask the adapter's strided
    convolutions.
    """

    model_type: ClassVar[str] = "wav2vec2-bert"
    log_scale: ClassVar[float] = 1.0
    normalized: ClassVar[bool] = True  # by the extractor, bin by bin
    # Kaldi, whose features these are, dithers by one step of 16-bit sound. The digital silence of
    # cut or padded files lies far below any room's, though, and the extractor's normalisation then
    # leaves little of the sound beside it: so the noise is 60 dB below the peak where that is more.
    DITHER: ClassVar[float] = 2.0**-15
    NOISE_FLOOR: ClassVar[float] = 1e-3

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Wav2Vec2BertModel(config)

    @staticmethod
    def window_s(feature_extractor: SeamlessM4TFeatureExtractor) -> float:
        """The length of a window in seconds."""
        return float(getattr(feature_extractor, "window_s", 10.0))

    @classmethod
    def extract_features(
        cls, feature_extractor: SeamlessM4TFeatureExtractor, windows: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Log-mel features (T, F) float32 of windows (n,) at the extractor's rate.

        Each is heard in a faint noise, the same every time, 60 dB below the window's loudest
        sample and never below one step of 16-bit sound.
        """
        rows = []
        # The extractor needs a frame (25 ms) and two stacks of frames to normalise over.
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
        """The layers, the last one nearest to the tokens."""
        return self.model.encoder.layers

    @property
    def token_width(self) -> int:
        """H."""
        own = self.config
        return int((own.add_adapter and own.output_hidden_size) or own.hidden_size)

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens (N, S, H) and their mask (N, S) of features (N, T, F)."""
        tokens = self.model(input_features=features, attention_mask=mask.long()).last_hidden_state
        if not self.config.add_adapter:
            return tokens, mask
        # The adapter's convolutions shorten what was heard as they shorten the sequence.
        lengths, kernel = mask.sum(1), self.config.adapter_kernel_size
        for _ in range(self.config.num_adapter_layers):
            lengths = (lengths + 2 * (kernel // 2) - kernel) // self.config.adapter_stride + 1
        return tokens, torch.arange(tokens.shape[1], device=mask.device) < lengths[:, None]

    def load(self, pretrained_model_name_or_path: str, config: PretrainedConfig) -> None:
        """Takes over the weights of a checkpoint: a folder or a hub id."""
        self.model = Wav2Vec2BertModel.from_pretrained(
            pretrained_model_name_or_path, config=self.config, dtype=torch.float32
        )
