"""CLAP backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import (
    ClapAudioConfig,
    ClapAudioModel,
    ClapAudioModelWithProjection,
    ClapFeatureExtractor,
    ClapModel,
    PretrainedConfig,
)

from align.models.backbones.base import Backbone


class ClapBackbone(Backbone):
    """CLAP's HTSAT audio encoder; every cell of its last feature map is an audio token.

    Windows have CLAP's own length; shorter audio is repeated to fill a window, as in CLAP's
    training, so no token of a window is padding. The cells are in temporal order, the lower half of
    the frequencies first: 64 tokens for the published models' 10 seconds.

    With `audio_tokens: pooled` in the configuration, a window has one token: CLAP's embedding in
    the space shared with text, normalized and multiplied by the square root of its width, so that
    its values have a magnitude of about one.
    """

    model_type: ClassVar[str] = "clap_audio_model"
    # Features are in decibels: 10 log10(power).
    log_scale: ClassVar[float] = 10 / np.log(10)
    normalized: ClassVar[bool] = False

    def __init__(self, config: ClapAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.pooled = getattr(config, "audio_tokens", "all") == "pooled"
        kind = ClapAudioModelWithProjection if self.pooled else ClapAudioModel
        self.model = kind(config)

    @staticmethod
    def window_s(feature_extractor: ClapFeatureExtractor) -> float:
        """Length of a window in seconds."""
        return float(feature_extractor.nb_max_samples / feature_extractor.sampling_rate)

    @staticmethod
    def extract_features(
        feature_extractor: ClapFeatureExtractor, windows: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Log-mel features (T, F), float32, of windows (n,) at the extractor's sampling rate."""
        # The extractor's default, "fusion", is for fused checkpoints. Windows are never longer
        # than the model's, so "rand_trunc" truncates nothing.
        mel = feature_extractor(
            list(windows),
            sampling_rate=feature_extractor.sampling_rate,
            truncation="rand_trunc",
            padding="repeatpad",
            return_tensors="np",
        )["input_features"]
        return [np.asarray(m[0], np.float32) for m in mel]

    @property
    def token_width(self) -> int:
        """H, width of an audio token."""
        return int(self.config.projection_dim if self.pooled else self.config.hidden_size)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, from input to output."""
        tower = self.model.audio_model if self.pooled else self.model
        return tower.audio_encoder.layers

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features (N, T, F) and mask (N, T) to audio tokens (N, S, H) and mask (N, S)."""
        output = self.model(input_features=features[:, None])
        window_mask = mask.any(1, keepdim=True)
        if self.pooled:
            unit = nn.functional.normalize(output.audio_embeds, dim=-1)
            return unit[:, None] * self.token_width**0.5, window_mask
        hidden = output.last_hidden_state
        tokens = hidden.flatten(2).transpose(1, 2)
        return tokens, window_mask.expand(-1, tokens.shape[1])

    def load(self, pretrained_model_name_or_path: str, config: PretrainedConfig) -> None:
        """Loads the weights of a checkpoint: a whole CLAP or its audio model.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            config: The checkpoint's configuration.

        Raises:
            ValueError: Pooled tokens are required, but the checkpoint has no audio projection.
        """
        if not self.pooled and config.model_type == "clap":
            whole = ClapModel.from_pretrained(pretrained_model_name_or_path, dtype=torch.float32)
            self.model.load_state_dict(whole.audio_model.state_dict())
            return
        loaded: Any = type(self.model).from_pretrained(
            pretrained_model_name_or_path,
            config=self.config,
            dtype=torch.float32,
            output_loading_info=True,
        )
        self.model, loading_info = loaded
        missing = loading_info["missing_keys"]
        if missing:
            raise ValueError(
                f"{pretrained_model_name_or_path} lacks {len(missing)} of CLAP's weights, such as "
                f"{sorted(missing)[0]}: give a whole CLAP checkpoint"
            )
