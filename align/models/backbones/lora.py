"""Low-rank adaptation of a backbone, with peft.

During training, the backbone's configuration contains `lora_rank`, and the attention projections
are saved under peft's names: `….base_layer.weight`, `….lora_A.default.weight` and
`….lora_B.default.weight`. `merge` merges LoRA into the weights and restores the plain model.
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
    """Adds LoRA (Hu et al. 2021, arXiv 2106.09685) to the attention projections.

    Outputs do not change until LoRA is trained, since one of its two matrices is zero. Its scale is
    1 for any rank.

    Args:
        backbone: Modified in place; its configuration stores the rank.
        rank: Rank of the matrices.

    Raises:
        ValueError: The rank is not positive, or the backbone is not pretrained.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if rank < 1:
        raise ValueError(f"LoRA's rank must be at least 1, not {rank}")
    if backbone.model_type not in TARGET_MODULES:
        raise ValueError(
            f"LoRA requires a pretrained backbone; train a {backbone.model_type} backbone as a "
            "whole: --train_backbone all"
        )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGET_MODULES[backbone.model_type])
    inject_adapter_in_model(config, backbone.model)
    # Otherwise transformers would save an adapter_config.json.
    del backbone.model.peft_config
    backbone.config.lora_rank = rank


def merge(backbone: Backbone) -> None:
    """Merges a backbone's LoRA into its weights and removes the LoRA layers."""
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
    """Sets which weights of a backbone are trainable.

    Args:
        backbone: Modified in place.
        trainable: "none", "all", "lora" (the weights added by `add`), or the number of last layers.

    Raises:
        ValueError: The value is invalid, exceeds the number of layers, or there is no LoRA.
    """
    if trainable not in ("none", "all", "lora") and not trainable.isdigit():
        raise ValueError(
            f"trainable must be 'none', 'all', 'lora' or a number of layers, not {trainable!r}"
        )
    backbone.requires_grad_(trainable == "all")
    unused = getattr(backbone.model, "masked_spec_embed", None)
    if unused is not None:
        # Used by transformers' SpecAugment only, which is off: it would never have a gradient.
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
