"""The encoder that a training starts from, and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
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
    from align.targets import CaptionTable


def begin(model: ModelArguments, *spaces: PromptSpace) -> AudioPromptEncoder:
    """A fresh encoder, or a trained one, with exactly those weights free that are to train.

    A trained encoder that lacks a space gets a head for it.

    Raises:
        OSError: there is no such backbone.
        ValueError: there is no such encoder, or the options do not fit it.
    """
    encoder = _fresh(model, spaces) if model.start is None else _trained(model, spaces)
    if model.train_backbone == "lora":
        lora.add(encoder, model.lora_rank)
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


def check_start(start: str | None, output_dir: str | None) -> None:
    """Refuses to train into the folder that the training starts from.

    Raises:
        ValueError: it would.
    """
    if start and output_dir and Path(start).expanduser().resolve() == Path(output_dir).resolve():
        raise ValueError(f"--start {start} would be overwritten: give another --output_dir")


def finish(encoder: AudioPromptEncoder) -> None:
    """Makes a trained encoder a plain one: what LoRA has learned goes into the weights."""
    lora.merge(encoder)


def _fresh(model: ModelArguments, spaces: Sequence[PromptSpace]) -> AudioPromptEncoder:
    # All sizes are kept: a saved encoder must not change where a default does.
    adapter = {"kind": model.adapter, **sizes_of(model.adapter), **model.adapter_sizes()}
    drops = ("hidden_dropout", "hidden_dropout_prob", "drop_path_rate")
    changes: dict[str, float | str] = dict.fromkeys(drops, model.dropout) if model.dropout else {}
    if model.audio_tokens != "all":
        changes["audio_tokens"] = model.audio_tokens
    shapes = {space.base: SpaceShape.of(space) for space in spaces}
    return AudioPromptEncoder.from_backbone(
        model.backbone, adapter, shapes, model.max_windows, **changes
    )


def _trained(model: ModelArguments, spaces: Sequence[PromptSpace]) -> AudioPromptEncoder:
    encoder = load_encoder(str(model.start)).float()
    # What a checkpoint's LoRA has learned is kept: a new one would begin in its place.
    lora.merge(encoder)
    trained = {space.base: SpaceShape.of(space) for space in spaces}
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
