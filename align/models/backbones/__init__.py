"""Audio backbones with one interface: windows of audio -> features -> audio tokens.

Each backbone has `window_s` and `extract_features` for its feature extractor, `token_width` and
`layers`, and maps features (N, T, F) and their mask (N, T) to audio tokens (N, S, H) and their mask
(N, S). Features are (T, F) per window for all backbones, so that caching, padding and augmentation
do not depend on the model.
"""

from __future__ import annotations

from align.models.backbones.base import Backbone
from align.models.backbones.clap import ClapBackbone
from align.models.backbones.loading import (
    BACKBONE_CLASSES,
    backbone_class,
    build_backbone,
    load_backbone,
)
from align.models.backbones.log_mel import LogMelBackbone
from align.models.backbones.lora import freeze
from align.models.backbones.w2v_bert import W2vBertBackbone

__all__ = [
    "BACKBONE_CLASSES",
    "Backbone",
    "ClapBackbone",
    "LogMelBackbone",
    "W2vBertBackbone",
    "backbone_class",
    "build_backbone",
    "freeze",
    "load_backbone",
]
