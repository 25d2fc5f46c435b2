"""Configuration of an audio adapter."""

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
    """Configuration of an audio adapter, stored as config.json in its folder.

    Attributes:
        base_model: Pipeline that the adapter belongs to: short name, folder or Hub id.
        attention_type: "shared" (reuses the block's query and output projections) or "sonic" (as in
            SonicDiffusion).
        blocks: UNet blocks with audio attention: down, mid, up.
        routing: Levels of each block, a key of `levels.ROUTINGS`.
        width: Hidden size of the level projector.
        depth: Number of layers of the level projector.
        heads: Number of attention heads of the level projector.
        lora_rank: LoRA rank on the UNet; 0 for no LoRA.
        lora_alpha: LoRA alpha. Defaults to the rank.
        lora_targets: UNet modules that LoRA is applied to.
        prompt_space: Prompt space of the encoder. This and all following fields are filled in by
            `SoundAdapter.from_unet`.
        token_width: Width H of the encoder's audio tokens.
        prompt_length: Length L of the prompt space.
        prompt_width: Width D of the prompt space.
        layers: Cross-attention modules with audio and their widths.
        fingerprint: Fingerprint of the base model's UNet.
        retrieval_memory: Size, weight and temperature of the retrieval memory by level.
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
                raise ValueError(f"there is no {value!r}; the choices are: {', '.join(choices)}")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must be 0 (no LoRA) or more, not {self.lora_rank}")
