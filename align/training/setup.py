"""The encoder that a training starts from, and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from align.models.adapters import sizes_of
from align.models.adapters.hierarchical import Hierarchical
from align.models.backbones.lora import freeze
from align.models.configuration import AudioPromptConfig
from align.models.encoder import AudioPromptEncoder, load_encoder, no_encoder
from align.models.heads import Head
from align.models.memory import Recall
from align.prompts.space import PromptSpace

if TYPE_CHECKING:
    from align.config.arguments import ModelArguments, RecallArguments
    from align.losses.alignment import Wanted
    from align.preprocessing.text_embeds import CaptionTable


def begin(model: ModelArguments, *spaces: PromptSpace) -> AudioPromptEncoder:
    """A fresh encoder, or a trained one, with exactly those weights free that are to train.

    A trained encoder that lacks a space gets a head for it.

    Raises:
        OSError: there is no such backbone.
        ValueError: there is no such encoder, or the options do not fit it.
    """
    encoder = _fresh(model, spaces) if model.start is None else _trained(model, spaces)
    if model.train_backbone == "lora":
        encoder.add_lora(model.lora_rank)
    freeze(encoder.backbone, model.train_backbone)
    if model.train_adapter == "level_weights":
        for space in spaces:
            _free_level_weights(encoder.head(space.base))
    return encoder


def tell_space(head: Head, captions: CaptionTable, space: PromptSpace) -> None:
    """Tells a fresh head the statistics of the captions that it learns, and its pipeline's nulls.

    One that goes on keeps its own: its answers are in their terms, and with others they would mean
    something else from the first step on. One that answers in the pipeline's terms is told in any
    case: what it answers stays the same, and losses, measures and recall see it centred.
    """
    if head.is_absolute:
        found = {k: replace(s, constant=s.constant & False) for k, s in
                 captions.statistics().items()}  # fmt: skip
        head.set_space(found, space.unconditional)
    elif not head.has_space:
        head.set_space(captions.statistics(), space.unconditional)


def _fresh(model: ModelArguments, spaces: Sequence[PromptSpace]) -> AudioPromptEncoder:
    # All sizes are kept: a saved encoder must not change where a default does.
    adapter = {"kind": model.adapter, **sizes_of(model.adapter), **model.adapter_sizes()}
    drops = ("hidden_dropout", "hidden_dropout_prob", "drop_path_rate")
    changes: dict[str, float | str] = dict.fromkeys(drops, model.dropout) if model.dropout else {}
    if model.audio_tokens != "all":
        changes["audio_tokens"] = model.audio_tokens
    shapes = {space.base: space.shape for space in spaces}
    return AudioPromptEncoder.from_backbone(
        model.backbone, adapter, shapes, model.max_windows, **changes
    )


def _trained(model: ModelArguments, spaces: Sequence[PromptSpace]) -> AudioPromptEncoder:
    encoder = load_encoder(str(model.start)).float()
    # What a checkpoint's LoRA has learned is kept: a new one would begin in its place.
    encoder.merge_lora()
    trained = {space.base: space.shape for space in spaces}
    known = list(encoder.heads.names)
    others = [name for name in known if name not in trained]
    if others and model.train_backbone != "none":
        raise ValueError(
            f"a backbone that trains spoils what {', '.join(others)} learned from it: "
            "give --train_backbone none, or every base of the encoder"
        )
    for name, shape in trained.items():
        if name not in known:
            print(f"{model.start} has no space {name}: a fresh head is trained for it", flush=True)
            encoder.add_space(name, shape)
        elif encoder.head(name).space != shape:
            own = encoder.head(name).space
            raise ValueError(f"{model.start} was trained for another {name}: {own}")
    for name in others:
        encoder.head(name).requires_grad_(False)
    encoder.config.default_space = spaces[0].base
    return encoder


def _free_level_weights(head: Head) -> None:
    if not isinstance(head.adapter, Hierarchical):
        kind = type(head.adapter).__name__.lower()
        raise ValueError(f"level weights are the hierarchical adapter's; this one is {kind}")
    head.requires_grad_(False)
    head.adapter.level_weights.requires_grad_(True)


def recalled(wanted: Wanted, rows: torch.Tensor, given: RecallArguments) -> Recall | None:
    """A memory of what is trained on; None where it is more than the options allow.

    Args:
        wanted: standardised targets by number.
        rows: (N,) the number of each training row's target.
        given: the options.
    """
    different = rows.unique()
    if not given.recall:
        return None
    if len(different) > given.recall:
        print(f"{len(different)} targets are more than --recall {given.recall}: none is remembered")
        return None
    pooled = None if wanted.pooled is None else wanted.pooled[different]
    embeds = wanted.embeds[different]
    return Recall.of(embeds, pooled, given.recall_share, given.recall_temperature)


def resolve_bases(model: ModelArguments) -> None:
    """Fills in the pipelines of --start's encoder, its default one first, where none are given.

    Raises:
        ValueError: --start is no encoder.
    """
    if model.base or model.start is None:
        return
    try:
        config = AudioPromptConfig.from_pretrained(model.start)
        spaces = {name: space["base"] for name, space in config.spaces.items()}
        first = spaces.pop(config.default_space)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise no_encoder(model.start, error) from error
    model.base = [first, *spaces.values()]
