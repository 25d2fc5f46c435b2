"""Low-rank adaptation of a backbone, by peft.

While it trains, the configuration of the backbone says `lora_rank`, and its attention's linear maps
are stored as peft names them: `….base_layer.weight`, `….lora_A.default.weight` and
`….lora_B.default.weight`. `merge` folds the product into the weights and leaves the plain model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from align.backbones.loading import Backbone
    from align.encoder import AudioPromptEncoder

# The attention's linear maps, as transformers names them in CLAP and in Wav2Vec2-BERT.
TARGETS = {
    "clap_audio_model": ["query", "key", "value"],
    "wav2vec2-bert": ["linear_q", "linear_k", "linear_v", "linear_out"],
}


def add(encoder: AudioPromptEncoder, rank: int) -> None:
    """Puts LoRA into an encoder's backbone, and notes it in its configuration.

    Raises:
        ValueError: the rank is not positive, or the backbone has nothing pretrained to adapt.
    """
    inject(encoder.backbone, rank)
    encoder.config.backbone = encoder.backbone.config.to_dict()


def inject(backbone: Backbone, rank: int) -> None:
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
    if backbone.model_type not in TARGETS:
        raise ValueError(
            f"LoRA adapts what was pretrained; a {backbone.model_type} backbone trains whole: "
            "--train_backbone all"
        )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS[backbone.model_type])
    inject_adapter_in_model(config, backbone.model)
    del backbone.model.peft_config  # peft's note to itself: transformers would save it apart
    backbone.config.lora_rank = rank


def merge(encoder: AudioPromptEncoder) -> None:
    """Folds an encoder's LoRA into its backbone, which is then a plain one.

    One without LoRA stays as it is.
    """
    backbone = encoder.backbone
    if not getattr(backbone.config, "lora_rank", 0):
        return
    from peft.tuners.lora import LoraLayer

    found = [(n, m) for n, m in backbone.named_modules() if isinstance(m, LoraLayer)]
    with torch.no_grad():
        for name, layer in found:
            layer.merge()  # type: ignore[operator]
            plain: nn.Module = layer.get_base_layer()
            plain.requires_grad_(False)
            backbone.set_submodule(name, plain)
    del backbone.config.lora_rank
    encoder.config.backbone = backbone.config.to_dict()
