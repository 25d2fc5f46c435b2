"""The encoder that a training starts from, and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from align.models.adapters import default_adapter_kwargs
from align.models.adapters.hierarchical import Hierarchical
from align.models.backbones.lora import freeze
from align.models.configuration import AudioPromptConfig
from align.models.encoder import AudioPromptEncoder, encoder_not_found, load_encoder
from align.models.heads import Head
from align.models.memory import RetrievalMemory
from align.prompts.space import PromptSpace

if TYPE_CHECKING:
    from align.config.arguments import MemoryArguments, ModelArguments
    from align.losses.alignment import TargetEmbeds
    from align.preprocessing.text_embeds import CaptionEmbeds


def build_encoder(model: ModelArguments, *spaces: PromptSpace) -> AudioPromptEncoder:
    """A fresh encoder, or a trained one, with exactly those weights free that are to train.

    A trained encoder that lacks a space gets a head for it.

    Raises:
        OSError: there is no such backbone.
        ValueError: there is no such encoder, or the options do not fit it.
    """
    encoder = (
        _new_encoder(model, spaces)
        if model.init_from is None
        else _load_trained_encoder(model, spaces)
    )
    if model.train_backbone == "lora":
        encoder.add_lora(model.lora_rank)
    freeze(encoder.backbone, model.train_backbone)
    if model.train_adapter == "level_weights":
        for space in spaces:
            _unfreeze_level_weights(encoder.head(space.base_model))
    return encoder


def set_space_statistics(head: Head, caption_embeds: CaptionEmbeds, space: PromptSpace) -> None:
    """Tells a fresh head the statistics of the captions that it learns, and its pipeline's nulls.

    One that goes on keeps its own: its answers are in their terms, and with others they would mean
    something else from the first step on. One that answers in the pipeline's terms is told in any
    case: what it answers stays the same, and losses, measures and recall see it centred.
    """
    if head.predicts_raw_embeds:
        found = {k: replace(s, constant=s.constant & False) for k, s in
                 caption_embeds.statistics().items()}  # fmt: skip
        head.set_statistics(found, space.unconditional)
    elif not head.has_statistics:
        head.set_statistics(caption_embeds.statistics(), space.unconditional)


def _new_encoder(model: ModelArguments, spaces: Sequence[PromptSpace]) -> AudioPromptEncoder:
    # All sizes are kept: a saved encoder must not change where a default does.
    adapter = {
        "adapter_type": model.adapter,
        **default_adapter_kwargs(model.adapter),
        **model.adapter_kwargs(),
    }
    dropout_keys = ("hidden_dropout", "hidden_dropout_prob", "drop_path_rate")
    changes: dict[str, float | str] = (
        dict.fromkeys(dropout_keys, model.backbone_dropout) if model.backbone_dropout else {}
    )
    if model.audio_tokens != "all":
        changes["audio_tokens"] = model.audio_tokens
    shapes = {space.base_model: space.shape for space in spaces}
    return AudioPromptEncoder.from_backbone(
        model.backbone, adapter, shapes, model.max_windows, **changes
    )


def _load_trained_encoder(
    model: ModelArguments, spaces: Sequence[PromptSpace]
) -> AudioPromptEncoder:
    encoder = load_encoder(str(model.init_from)).float()
    # What a checkpoint's LoRA has learned is kept: a new one would begin in its place.
    encoder.merge_lora()
    trained = {space.base_model: space.shape for space in spaces}
    existing = list(encoder.heads.names)
    others = [name for name in existing if name not in trained]
    if others and model.train_backbone != "none":
        raise ValueError(
            f"a backbone that trains spoils what {', '.join(others)} learned from it: "
            "give --train_backbone none, or every base of the encoder"
        )
    for name, shape in trained.items():
        if name not in existing:
            print(
                f"{model.init_from} has no space {name}: a fresh head is trained for it", flush=True
            )
            encoder.add_space(name, shape)
        elif encoder.head(name).space != shape:
            own = encoder.head(name).space
            raise ValueError(f"{model.init_from} was trained for another {name}: {own}")
    for name in others:
        encoder.head(name).requires_grad_(False)
    encoder.config.default_space = spaces[0].base_model
    return encoder


def _unfreeze_level_weights(head: Head) -> None:
    if not isinstance(head.adapter, Hierarchical):
        kind = type(head.adapter).__name__.lower()
        raise ValueError(f"level weights are the hierarchical adapter's; this one is {kind}")
    head.requires_grad_(False)
    head.adapter.level_weights.requires_grad_(True)


def build_retrieval_memory(
    targets: TargetEmbeds, rows: torch.Tensor, arguments: MemoryArguments
) -> RetrievalMemory | None:
    """A memory of what is trained on; None where it is more than the options allow.

    Args:
        wanted: standardised targets by number.
        rows: (N,) the number of each training row's target.
        given: the options.
    """
    unique_rows = rows.unique()
    if not arguments.retrieval_memory:
        return None
    if len(unique_rows) > arguments.retrieval_memory:
        print(
            f"{len(unique_rows)} targets are more than --retrieval_memory {arguments.retrieval_memory}: none is remembered"
        )
        return None
    pooled = None if targets.pooled is None else targets.pooled[unique_rows]
    embeds = targets.embeds[unique_rows]
    return RetrievalMemory.from_embeds(
        embeds, pooled, arguments.retrieval_memory_weight, arguments.retrieval_memory_temperature
    )


def resolve_bases(model: ModelArguments) -> None:
    """Fills in the pipelines of --init_from's encoder, its default one first, where none are given.

    Raises:
        ValueError: --init_from is no encoder.
    """
    if model.base_model or model.init_from is None:
        return
    try:
        config = AudioPromptConfig.from_pretrained(model.init_from)
        spaces = {name: space["base_model"] for name, space in config.spaces.items()}
        first = spaces.pop(config.default_space)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise encoder_not_found(model.init_from, error) from error
    model.base_model = [first, *spaces.values()]
