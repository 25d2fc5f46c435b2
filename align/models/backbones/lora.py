"""Low-rank adaptation of a backbone, by peft.

While it trains, the configuration of the backbone says `lora_rank`, and its attention's linear maps
are stored as peft names them: `….base_layer.weight`, `….lora_A.default.weight` and
`….lora_B.default.weight`. `merge` folds the product into the weights and leaves the plain model.
"""

from __future__ import annotations

import torch
from torch import nn

from align.models.backbones.base import Backbone

# The attention's linear maps, as transformers names them in CLAP and in Wav2Vec2-BERT.
TARGET_MODULES = {
    "clap_audio_model": ["query", "key", "value"],
    "wav2vec2-bert": ["linear_q", "linear_k", "linear_v", "linear_out"],
}


def add(backbone: Backbone, rank: int) -> None:
    """Puts LoRA (Hu et al. 2021, arXiv 2106.09685) beside the attention's linear maps.

    It changes nothing until it has learned: one of its two matrices starts at zero. What it learns
    is scaled by one, whatever the rank.

    Args:
        backbone: changed in place; its configuration notes the rank.
        rank: of the matrices.

    Raises:
        ValueError: the rank is not positive, or the backbone has nothing pretrained to adapt.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise ValueError(f"LoRA's rank must be at least 1, not {rank}")
    if backbone.model_type not in TARGET_MODULES:
        raise ValueError(
            f"LoRA adapts what was pretrained; a {backbone.model_type} backbone trains whole: "
            "--train_backbone all"
        )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGET_MODULES[backbone.model_type])
    inject_adapter_in_model(config, backbone.model)
    del backbone.model.peft_config  # peft's note to itself: transformers would save it apart
    backbone.config.lora_rank = rank


def merge(backbone: Backbone) -> None:
    """Merges a backbone's LoRA into its weights, which makes it a plain one."""
    from peft.tuners.lora import LoraLayer

    found = [(n, m) for n, m in backbone.named_modules() if isinstance(m, LoraLayer)]
    with torch.no_grad():
        for name, layer in found:
            layer.merge()  # type: ignore[operator]
            plain: nn.Module = layer.get_base_layer()
            plain.requires_grad_(False)
            backbone.set_submodule(name, plain)
    del backbone.config.lora_rank


def freeze(backbone: Backbone, trainable: str) -> None:
    """Sets which of a backbone's weights train.

    Args:
        backbone: changed in place.
        trained: "none", "all", "lora" (what `add` put in), or a number N: the
            last N of its layers.

    Raises:
        ValueError: anything else, or more layers than there are, or no LoRA in it.
    """
    if trainable not in ("none", "all", "lora") and not trainable.isdigit():
        raise ValueError(
            f"a backbone trains 'none', 'all', 'lora' or a number of layers, not {trainable!r}"
        )
    backbone.requires_grad_(trainable == "all")
    unused = getattr(backbone.model, "masked_spec_embed", None)
    if unused is not None:
        # Only transformers' own SpecAugment reads it, which is off: it would never get a gradient.
        unused.requires_grad_(False)
    if trainable == "lora":
        _train_lora(backbone)
    if not trainable.isdigit():
        return
    count = int(trainable)
    if not 0 < count <= len(backbone.layers):
        raise ValueError(
            f"the backbone has {len(backbone.layers)} layers; {count} cannot be trained"
        )
    for layer in backbone.layers[-count:]:
        layer.requires_grad_(True)


def _train_lora(backbone: Backbone) -> None:
    names = [name for name, _ in backbone.named_parameters() if ".lora_" in name]
    if not names:
        raise ValueError("the backbone has no LoRA to train")
    for name in names:
        backbone.get_parameter(name).requires_grad_(True)
