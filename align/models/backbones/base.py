"""What every backbone has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig


class Backbone(nn.Module):
    """An audio model: features of windows to audio tokens.

    Features are (T, F) a window for every backbone, so that caching, padding and augmentation need
    not know the model.

    Attributes:
        model_type: transformers' name of the model's configuration.
        log_scale: features are log_scale * ln(power).
        normalised: whether the feature extractor standardizes them, bin by bin over a window.
        config: the model's configuration.
        model: the model of transformers.
    """

    model_type: ClassVar[str]
    log_scale: ClassVar[float]
    normalized: ClassVar[bool]
    config: Any
    model: Any

    @staticmethod
    def window_s(extractor: Any) -> float:
        """The length of a window in seconds."""
        raise NotImplementedError

    @staticmethod
    def extract_features(extractor: Any, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-mel features (T, F) float32 of windows (n,) at the extractor's rate."""
        raise NotImplementedError

    @property
    def token_width(self) -> int:
        """H, the width of an audio token."""
        raise NotImplementedError

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, the last one nearest to the tokens."""
        raise NotImplementedError

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens (N, S, H) and their mask (N, S) of features (N, T, F) and theirs (N, T)."""
        raise NotImplementedError

    def load(self, where: str, config: PretrainedConfig) -> None:
        """Loads the weights of a checkpoint: a folder or a hub id."""
        raise NotImplementedError
