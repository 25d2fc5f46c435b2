"""Backbones from configurations and from checkpoints."""

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
    """The backbone class of a transformers `model_type`.

    Raises:
        ValueError: the model is none of these.
    """
    if model_type not in BACKBONE_CLASSES:
        raise ValueError(
            f"a backbone of type {model_type!r} is not known; there are: {', '.join(BACKBONE_CLASSES)}"
        )
    return BACKBONE_CLASSES[model_type]


def _audio_config(config: PretrainedConfig) -> PretrainedConfig:
    """The audio side of a whole CLAP's configuration; others as they are."""
    return config.audio_config if config.model_type == "clap" else config


def build_backbone(config: PretrainedConfig) -> Backbone:
    """A backbone of a configuration with fresh weights, and LoRA where it names a rank."""
    # SpecAugment is the project's own option and falls on both backbones alike; dropping whole
    # layers would make tokens differ from run to run in distributed training.
    if config.model_type == W2vBertBackbone.model_type:
        config.apply_spec_augment = False
        config.layerdrop = 0.0
    kind: Any = backbone_class(config.model_type)
    backbone: Backbone = kind(config)
    if getattr(config, "lora_rank", 0):
        lora.add(backbone, config.lora_rank)
    return backbone


def load_backbone(name: str, **options: Any) -> tuple[Backbone, Any]:
    """A pretrained backbone and its feature extractor.

    Args:
        name: a short name, a folder or a hub id of a CLAP or Wav2Vec2-BERT checkpoint, or of a
            trained log-mel front end; "log-mel" itself is an untrained one.
        options: changes to the model's configuration.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is of another kind, or cannot give the tokens that are asked for.
    """
    pretrained_model_name_or_path = lookup(BACKBONES, name)
    if callable(pretrained_model_name_or_path):
        built: tuple[Backbone, Any] = pretrained_model_name_or_path(**options)
        return built
    config = AutoConfig.from_pretrained(pretrained_model_name_or_path)
    audio = _audio_config(config)
    kind = backbone_class(audio.model_type)  # before anything else is looked for
    if getattr(audio, "enable_fusion", False):
        raise ValueError(f"{name} is a fused CLAP: give one that is not, as larger_clap_general")
    if options.get("audio_tokens", "all") != "all" and kind is not ClapBackbone:
        raise ValueError(f"{name} has no pooled token: that is CLAP's; leave out --audio_tokens")
    feature_extractor = AutoFeatureExtractor.from_pretrained(pretrained_model_name_or_path)
    for key, value in options.items():
        setattr(audio, key, value)
    backbone = build_backbone(audio)
    backbone.load(pretrained_model_name_or_path, config)
    return backbone, feature_extractor
