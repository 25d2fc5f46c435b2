"""Base class of the audio backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig


class Backbone(nn.Module, ABC):
    """An audio model that maps the features of windows to audio tokens.

    Features are (T, F) per window for every backbone, so that caching, padding and augmentation do
    not depend on the model.

    Attributes:
        model_type: `model_type` of the model's configuration in transformers.
        log_scale: Scale of the features, which are log_scale * ln(power).
        normalized: Whether the feature extractor standardizes features per bin over a window.
        config: Configuration of the model.
        model: The transformers model.
    """

    model_type: ClassVar[str]
    log_scale: ClassVar[float]
    normalized: ClassVar[bool]
    config: Any
    model: Any

    @staticmethod
    @abstractmethod
    def window_s(feature_extractor: Any) -> float:
        """Length of a window in seconds."""

    @staticmethod
    @abstractmethod
    def extract_features(feature_extractor: Any, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-mel features (T, F), float32, of windows (n,) at the extractor's sampling rate."""

    @property
    @abstractmethod
    def token_width(self) -> int:
        """H, width of an audio token."""

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """The layers, from input to output."""

    @abstractmethod
    def forward(
        self, features: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps features (N, T, F) and mask (N, T) to audio tokens (N, S, H) and mask (N, S)."""

    @abstractmethod
    def load(self, pretrained_model_name_or_path: str, config: PretrainedConfig) -> None:
        """Loads the weights of a checkpoint.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            config: The checkpoint's configuration.
        """
