"""The configuration of a sound adapter: what its folder's config.json holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from diffuse.models.attention_processor import AudioAttentionLayer, SonicAttentionLayer
from diffuse.models.levels import ROUTINGS
from diffuse.models.unet import UNET_BLOCKS

ATTENTION_TYPES: dict[str, type[AudioAttentionLayer]] = {
    "shared": AudioAttentionLayer,
    "sonic": SonicAttentionLayer,
}


@dataclass
class AdapterConfig:
    """What an adapter is made of: what its folder's config.json holds.

    Attributes:
        base: the pipeline it belongs to: a name, a folder or a hub id.
        form: "shared" (the block's query and output) or "sonic" (SonicDiffusion's own ones).
        blocks: the parts of the UNet that hear, of down, mid, up.
        routing: which levels each part hears, a key of `levels.ROUTINGS`.
        width: the projector's own.
        depth: the projector's layers.
        heads: the projector's attention heads.
        lora_rank: of the LoRA on the UNet; 0 for none.
        lora_alpha: of the LoRA; its rank if not given.
        lora_targets: the UNet's layers that LoRA changes.
        space: the encoder's prompt space; found with what follows when an adapter is made.
        token_width: H of the encoder's audio tokens.
        prompt_length: L of the space.
        prompt_width: D of the space.
        layers: the cross-attentions that hear and their widths.
        fingerprint: what the base is known by.
        recall: by level, what the projector remembers: rows, share and temperature.
    """

    base_model: str = "mini"
    attention_type: str = "shared"
    blocks: tuple[str, ...] = UNET_BLOCKS
    routing: str = "all"
    width: int = 256
    depth: int = 2
    heads: int = 4
    lora_rank: int = 0
    lora_alpha: int | None = None
    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    prompt_space: str | None = None
    token_width: int = 0
    prompt_length: int = 0
    prompt_width: int = 0
    layers: dict[str, int] = field(default_factory=dict)
    fingerprint: list[float] = field(default_factory=list)
    retrieval_memory: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks, self.lora_targets = tuple(self.blocks), tuple(self.lora_targets)
        for value, choices in ((self.attention_type, ATTENTION_TYPES), (self.routing, ROUTINGS)):
            if value not in choices:
                raise ValueError(f"there is no {value!r}; there are: {', '.join(choices)}")
        if self.lora_rank < 0:
            raise ValueError(f"a LoRA's rank is 0 (none) or more, not {self.lora_rank}")
