"""Build backbones from configurations and load pretrained ones."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, PretrainedConfig

from align.models.backbones import lora
from align.models.backbones.base import Backbone
from align.models.backbones.clap import ClapBackbone
from align.models.backbones.log_mel import LogMelBackbone
from align.models.backbones.w2v_bert import W2vBertBackbone
from align.registry import BACKBONES, lookup

BACKBONE_CLASSES: dict[str, type[Backbone]] = {
    kind.model_type: kind for kind in (ClapBackbone, W2vBertBackbone, LogMelBackbone)
}


def backbone_class(model_type: str) -> type[Backbone]:
    """Returns the backbone class of a transformers `model_type`.

    Raises:
        ValueError: The model type is not supported.
    """
    if model_type not in BACKBONE_CLASSES:
        raise ValueError(
            f"there is no backbone of type {model_type!r}; there are: {', '.join(BACKBONE_CLASSES)}"
        )
    return BACKBONE_CLASSES[model_type]


def _audio_config(config: PretrainedConfig) -> PretrainedConfig:
    """Returns the audio configuration of a whole CLAP; others unchanged."""
    return config.audio_config if config.model_type == "clap" else config


def build_backbone(config: PretrainedConfig) -> Backbone:
    """Builds a backbone with random weights, with LoRA if the configuration has a rank."""
    # SpecAugment is applied to the features of all backbones instead; layer dropout would make
    # tokens differ from run to run in distributed training.
    if config.model_type == W2vBertBackbone.model_type:
        config.apply_spec_augment = False
        config.layerdrop = 0.0
    kind: Any = backbone_class(config.model_type)
    backbone: Backbone = kind(config)
    if getattr(config, "lora_rank", 0):
        lora.add(backbone, config.lora_rank)
    return backbone


def load_backbone(name: str, **options: Any) -> tuple[Backbone, Any]:
    """Loads a pretrained backbone and its feature extractor.

    Args:
        name: Short name, folder or Hub id of a CLAP or Wav2Vec2-BERT checkpoint, or of a trained
            log-mel model; "log-mel" initializes an untrained one.
        **options: Overrides of the model's configuration.

    Raises:
        OSError: The checkpoint does not exist.
        ValueError: The model type is not supported, or the model lacks the requested tokens.
    """
    source = lookup(BACKBONES, name)
    if callable(source):
        built: tuple[Backbone, Any] = source(**options)
        return built
    config = AutoConfig.from_pretrained(source)
    audio = _audio_config(config)
    kind = backbone_class(audio.model_type)  # fails early for unsupported models
    if getattr(audio, "enable_fusion", False):
        raise ValueError(
            f"{name} is a fused CLAP, which is not supported: use one without fusion, such as "
            "larger_clap_general"
        )
    if options.get("audio_tokens", "all") != "all" and kind is not ClapBackbone:
        raise ValueError(
            f"{name} has no pooled token, which only CLAP has: leave out --audio_tokens"
        )
    feature_extractor = AutoFeatureExtractor.from_pretrained(source)
    for key, value in options.items():
        setattr(audio, key, value)
    backbone = build_backbone(audio)
    backbone.load(source, config)
    return backbone, feature_extractor
