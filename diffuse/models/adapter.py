"""The sound adapter: all that a UNet needs in order to hear, without the UNet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffuse.models.attention_processor import AudioAttentionLayer, AudioStates
from diffuse.models.configuration import ATTENTION_TYPES, AdapterConfig
from diffuse.models.levels import (
    LEVELS,
    ROUTINGS,
    level_indices,
    level_weights,
    move_foreground_to_background,
    token_weights,
)
from diffuse.models.memory import LevelRetrievalMemory
from diffuse.models.projector import LevelProjector
from diffuse.models.unet import base_layer, block_of, cross_attentions, fingerprint


class SoundAdapter(nn.Module):
    """The projector, the layers that hear, and the levels' weights.

    Its weights stay in float32 beside a UNet of any precision; the LoRA on the UNet is not among
    them, because it lives in the UNet (see `attachment`).

    Args:
        config: whole, as `of` makes it.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.projector = LevelProjector(
            config.token_width,
            config.prompt_length,
            config.prompt_width,
            config.width,
            config.depth,
            config.heads,
        )
        self.retrieval_memory: LevelRetrievalMemory | None = None
        if config.retrieval_memory:
            self.retrieval_memory = LevelRetrievalMemory(
                config.retrieval_memory, config.prompt_width
            )
        kind = ATTENTION_TYPES[config.attention_type]
        self.layers = nn.ModuleDict(
            {_key(name): kind(config.prompt_width, c) for name, c in config.layers.items()}
        )
        self.level_logits = nn.Parameter(torch.zeros(len(LEVELS)))
        self.register_buffer("temperature", torch.ones(()))
        self.lora_folder: Path | None = None  # where a loaded adapter's LoRA lies

    @classmethod
    def from_unet(
        cls, unet: Any, encoder: Any, config: AdapterConfig, prompt_space: str | None = None
    ) -> SoundAdapter:
        """A new adapter between an aligned encoder and a UNet; nothing of either is changed.

        Args:
            unet: the base's.
            encoder: an `AudioPromptEncoder`.
            config: the choices; sizes are filled in.
            space: the encoder's prompt space; its default one if not given.

        Raises:
            ValueError: the encoder has no such space, or its prompts do not fit the UNet.
        """
        prompt_space = prompt_space or config.prompt_space or encoder.config.default_space
        head = encoder.head(prompt_space)
        attentions = cross_attentions(unet, config.blocks)
        width = base_layer(next(iter(attentions.values())).to_k).in_features
        if head.space.width != width:
            raise ValueError(
                f"the encoder's prompts for {prompt_space!r} are {head.space.width} wide and "
                f"{config.base_model!r} reads {width}: align an encoder with this base"
            )
        config.prompt_space, config.prompt_width = prompt_space, width
        config.prompt_length = head.space.length
        config.token_width = encoder.backbone.token_width
        config.layers = {n: base_layer(a.to_k).out_features for n, a in attentions.items()}
        config.fingerprint = fingerprint(unet)
        adapter = cls(config)
        for name, attention in attentions.items():
            adapter.layer(name).init_from_attention(attention)
        unconditional = head.unconditional(1).embeds.to(head.statistics().std)
        adapter.projector.set_space(head.statistics().std.mean(0), unconditional)
        return adapter

    def layer(self, name: str) -> AudioAttentionLayer:
        """The layer of a cross-attention by the attention's name."""
        found = self.layers[_key(name)]
        assert isinstance(found, AudioAttentionLayer)
        return found

    @property
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The weights by the names that training stages use: each is in exactly one part."""
        projector, layers = (
            list(module.named_parameters()) for module in (self.projector, self.layers)
        )
        return {
            "projector": [p for n, p in projector if not n.startswith("level_projections.")],
            "level_projections": list(self.projector.level_projections.parameters()),
            "attention": [p for name, p in layers if not name.endswith(".gate")],
            "gates": [p for name, p in layers if name.endswith(".gate")],
            "level_weights": [self.level_logits],
        }

    def gates(self) -> dict[str, float]:
        """How far each layer's gate is open, tanh(g), by the attention's name."""
        return {n: torch.tanh(self.layer(n).gate).item() for n in self.config.layers}

    def level_weights(self) -> torch.Tensor:
        """The levels' weights (3,), with mean one, at the stored temperature."""
        return level_weights(self.level_logits, self.get_buffer("temperature"))

    def set_temperature(self, temperature: float) -> None:
        """Sharpens (below 1) or evens out (above 1) the levels' weights; it is saved with them.

        Raises:
            ValueError: it is not positive.
        """
        if temperature <= 0:
            raise ValueError(f"a temperature is positive, not {temperature}")
        self.get_buffer("temperature").fill_(temperature)

    def project(
        self, tokens: torch.Tensor, mask: torch.Tensor, embeds: torch.Tensor
    ) -> torch.Tensor:
        """Level tokens (B, J, D) of recordings; arguments as `LevelProjector` takes them.

        What the projector answers, drawn towards what is remembered.
        """
        found: torch.Tensor = self.projector(tokens, mask, embeds)
        if self.retrieval_memory is not None:
            found = self.retrieval_memory(found, self.projector.get_buffer("spread"))
        return found

    def set_retrieval_memory(self, memory: LevelRetrievalMemory | None) -> None:
        """Has the level tokens follow what is remembered; None for nothing any more."""
        self.retrieval_memory = None if memory is None else memory.to(self.level_logits.device)
        self.config.retrieval_memory = {} if memory is None else memory.sizes

    def move_to_background(self, tokens: torch.Tensor) -> torch.Tensor:
        """Level tokens (B, J, D) with what is heard in front put behind."""
        return move_foreground_to_background(tokens, self.projector.get_buffer("null_tokens"))

    def compute_key_values(
        self,
        tokens: torch.Tensor,
        keep_audio: torch.Tensor | None = None,
        dtype: torch.dtype | None = None,
        level_scales: Mapping[str, float] | None = None,
    ) -> AudioStates:
        """What every layer hears of level tokens, for the UNet's `attention.CROSS_ATTENTION_KWARG`.

        Args:
            tokens: (B, J, D).
            keep: (B,) bool, false where a row shall hear silence; all true by default.
            dtype: of the result: the UNet's; the adapter's own by default.
            scales: of single levels by name. One at 0 is not there at all: its keys would still
                draw attention away from the others.

        Raises:
            ValueError: a scale's level does not exist.
        """
        tokens = self.projector.project_levels(tokens)
        weights = token_weights(self.level_weights(), level_scales)
        strength = (
            tokens.new_ones(len(tokens)) if keep_audio is None else keep_audio.to(tokens.dtype)
        )
        audio: AudioStates = {}
        for name in self.config.layers:
            levels = ROUTINGS[self.config.routing][block_of(name)]
            where = level_indices(
                [level for level in levels if (level_scales or {}).get(level) != 0]
            )
            if not where:
                continue
            layer = self.layer(name)
            key_values = layer(tokens[:, where], weights[where], strength[:, None, None])
            audio[name] = [key_values.to(tokens.device, dtype or key_values.values.dtype)]
        return audio

    def forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        embeds: torch.Tensor,
        keep_audio: torch.Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> AudioStates:
        """`project` and `compute_key_values` in one."""
        return self.compute_key_values(self.project(tokens, mask, embeds), keep_audio, dtype)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's name may hold no dot
