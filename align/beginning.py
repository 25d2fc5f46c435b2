"""The encoder that a training starts from, and what it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.adapters import sizes_of
from align.adapters.hierarchical import Hierarchical
from align.backbones import freeze, lora
from align.encoder import AudioPromptEncoder
from align.heads import Head, SpaceShape
from align.outcome import load_encoder
from align.prompts import PromptSpace

if TYPE_CHECKING:
    from align.arguments import ModelArguments


def begin(model: ModelArguments, space: PromptSpace) -> AudioPromptEncoder:
    """A fresh encoder, or a trained one, with exactly those weights free that are to train.

    Raises:
        OSError: there is no such backbone.
        ValueError: there is no such encoder, or the options do not fit it.
    """
    encoder = _fresh(model, space) if model.start is None else _trained(model, space)
    if model.train_backbone == "lora":
        lora.add(encoder, model.lora_rank)
    freeze(encoder.backbone, model.train_backbone)
    if model.train_adapter == "level_weights":
        _free_level_weights(encoder.head())
    return encoder


def finish(encoder: AudioPromptEncoder) -> None:
    """Makes a trained encoder a plain one: what LoRA has learned goes into the weights."""
    lora.merge(encoder)


def _fresh(model: ModelArguments, space: PromptSpace) -> AudioPromptEncoder:
    # All sizes are kept: a saved encoder must not change where a default does.
    adapter = {"kind": model.adapter, **sizes_of(model.adapter), **model.adapter_sizes()}
    drops = ("hidden_dropout", "hidden_dropout_prob", "drop_path_rate")
    changes: dict[str, float | str] = dict.fromkeys(drops, model.dropout) if model.dropout else {}
    if model.audio_tokens != "all":
        changes["audio_tokens"] = model.audio_tokens
    shapes = {model.base: SpaceShape.of(space)}
    return AudioPromptEncoder.from_backbone(
        model.backbone, adapter, shapes, model.max_windows, **changes
    )


def _trained(model: ModelArguments, space: PromptSpace) -> AudioPromptEncoder:
    encoder = load_encoder(str(model.start)).float()
    head = encoder.head(model.base)
    if head.space != SpaceShape.of(space):
        raise ValueError(f"{model.start} was trained for another {model.base}: {head.space}")
    encoder.config.default_space = model.base
    return encoder


def _free_level_weights(head: Head) -> None:
    if not isinstance(head.adapter, Hierarchical):
        kind = type(head.adapter).__name__.lower()
        raise ValueError(f"level weights are the hierarchical adapter's; this one is {kind}")
    head.requires_grad_(False)
    head.adapter.level_weights.requires_grad_(True)
