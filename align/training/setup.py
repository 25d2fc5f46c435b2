"""Build the encoder to train, its statistics and its retrieval memory."""

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
    """Build a new encoder or load a trained one, with `requires_grad` set for training.

    A trained encoder gets a new head for each prompt space that it lacks.

    Args:
        model: Options of the model.
        spaces: Prompt spaces to train, the default one first.

    Raises:
        OSError: If the backbone does not exist.
        ValueError: If the encoder does not exist, or the options do not fit it.
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
    """Set the statistics of the captions and the unconditional embeds in a new head.

    A resumed head keeps its statistics; changing them would change the meaning of its outputs. A
    head that predicts raw embeds always gets them: its outputs stay the same, while losses, metrics
    and retrieval memory are standardized.

    Args:
        head: Head of the prompt space.
        caption_embeds: Embeds of the training captions.
        space: The prompt space.
    """
    if head.predicts_raw_embeds:
        found = {k: replace(s, constant=s.constant & False) for k, s in
                 caption_embeds.statistics().items()}  # fmt: skip
        head.set_statistics(found, space.unconditional)
    elif not head.has_statistics:
        head.set_statistics(caption_embeds.statistics(), space.unconditional)


def _new_encoder(model: ModelArguments, spaces: Sequence[PromptSpace]) -> AudioPromptEncoder:
    # All sizes are saved, so that an encoder does not change when a default does.
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
    # Keep the LoRA weights of the checkpoint: a new LoRA would replace them.
    encoder.merge_lora()
    trained = {space.base_model: space.shape for space in spaces}
    existing = list(encoder.heads.names)
    others = [name for name in existing if name not in trained]
    if others and model.train_backbone != "none":
        raise ValueError(
            f"training the backbone would break the heads of {', '.join(others)}: give "
            "--train_backbone none, or every base model of the encoder"
        )
    for name, shape in trained.items():
        if name not in existing:
            print(
                f"{model.init_from} has no space {name}: a new head is trained for it", flush=True
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
        raise ValueError(f"level_weights needs the hierarchical adapter; this one is {kind}")
    head.requires_grad_(False)
    head.adapter.level_weights.requires_grad_(True)


def build_retrieval_memory(
    targets: TargetEmbeds, rows: torch.Tensor, arguments: MemoryArguments
) -> RetrievalMemory | None:
    """Build a retrieval memory of the training targets.

    Args:
        targets: Standardized target embeds.
        rows: Index of the target of each training row, shape (N,).
        arguments: Options of the memory.

    Returns:
        The memory, or None if it is disabled or there are more targets than it may store.
    """
    unique_rows = rows.unique()
    if not arguments.retrieval_memory:
        return None
    if len(unique_rows) > arguments.retrieval_memory:
        print(
            f"{len(unique_rows)} targets are more than --retrieval_memory "
            f"{arguments.retrieval_memory}: the encoder gets no retrieval memory"
        )
        return None
    pooled = None if targets.pooled is None else targets.pooled[unique_rows]
    embeds = targets.embeds[unique_rows]
    return RetrievalMemory.from_embeds(
        embeds, pooled, arguments.retrieval_memory_weight, arguments.retrieval_memory_temperature
    )


def resolve_bases(model: ModelArguments) -> None:
    """Fill in the base models of --init_from, the default one first, if none are given.

    Args:
        model: Options of the model.

    Raises:
        ValueError: If --init_from is not an encoder.
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
