"""Backbones behind one protocol: windows of sound -> features -> audio tokens.

Each has `window_s` and `features` of its extractor, `token_width`, `layers`, and answers features
(N, T, F) with their mask (N, T) by audio tokens (N, S, H) with theirs (N, S). Features are kept as
(T, F) a window for all, so that caching, padding and augmentation know nothing of the model.
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
