"""The audio adapter: everything that conditions a UNet on audio, without the UNet itself."""

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
    """An audio adapter: level projector, audio attention layers and level weights.

    Its weights stay in float32, whatever the precision of the UNet. The LoRA is not part of the
    module because its weights are in the UNet (see `attach`).

    Args:
        config: Complete configuration, as `from_unet` creates it.
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
        self.lora_folder: Path | None = None  # folder with the LoRA of a loaded adapter

    @classmethod
    def from_unet(
        cls, unet: Any, encoder: Any, config: AdapterConfig, prompt_space: str | None = None
    ) -> SoundAdapter:
        """Create an untrained adapter between an aligned encoder and a UNet.

        Args:
            unet: UNet of the base model.
            encoder: An `AudioPromptEncoder`.
            config: Configuration; the sizes are filled in.
            prompt_space: Prompt space of the encoder. Defaults to its default space.

        Returns:
            The adapter. Encoder and UNet are not changed.

        Raises:
            ValueError: If the encoder has no such space, or its prompts do not fit the UNet.
        """
        prompt_space = prompt_space or config.prompt_space or encoder.config.default_space
        head = encoder.head(prompt_space)
        attentions = cross_attentions(unet, config.blocks)
        width = base_layer(next(iter(attentions.values())).to_k).in_features
        if head.space.width != width:
            raise ValueError(
                f"the encoder's prompts for {prompt_space!r} are {head.space.width} wide and "
                f"{config.base_model!r} expects {width}: use an encoder aligned with it"
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
        """Return the layer of a cross-attention by the name of the attention module."""
        found = self.layers[_key(name)]
        assert isinstance(found, AudioAttentionLayer)
        return found

    @property
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the group names of training stages; the groups are disjoint."""
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
        """Return tanh(gate) of each layer by the name of the attention module."""
        return {n: torch.tanh(self.layer(n).gate).item() for n in self.config.layers}

    def level_weights(self) -> torch.Tensor:
        """Return the level weights (3,), with mean one, at the stored temperature."""
        return level_weights(self.level_logits, self.get_buffer("temperature"))

    def set_temperature(self, temperature: float) -> None:
        """Set the softmax temperature of the level weights, which is saved with the adapter.

        Args:
            temperature: Values below 1 sharpen the weights, values above 1 flatten them.

        Raises:
            ValueError: If the temperature is not positive.
        """
        if temperature <= 0:
            raise ValueError(f"the temperature must be positive, not {temperature}")
        self.get_buffer("temperature").fill_(temperature)

    def project(
        self, tokens: torch.Tensor, mask: torch.Tensor, embeds: torch.Tensor
    ) -> torch.Tensor:
        """Compute level tokens, interpolated with the retrieval memory if there is one.

        Args:
            tokens: Audio tokens (B, S, H).
            mask: Boolean mask (B, S), true for valid tokens.
            embeds: Prompt embeds (B, L, D) of the same clips.

        Returns:
            Level tokens (B, J, D).
        """
        found: torch.Tensor = self.projector(tokens, mask, embeds)
        if self.retrieval_memory is not None:
            found = self.retrieval_memory(found, self.projector.get_buffer("std"))
        return found

    def set_retrieval_memory(self, memory: LevelRetrievalMemory | None) -> None:
        """Set the retrieval memory of the level tokens.

        Args:
            memory: The memory; None removes it.
        """
        self.retrieval_memory = None if memory is None else memory.to(self.level_logits.device)
        self.config.retrieval_memory = {} if memory is None else memory.sizes

    def move_to_background(self, tokens: torch.Tensor) -> torch.Tensor:
        """Move the foreground of level tokens (B, J, D) to the background."""
        return move_foreground_to_background(tokens, self.projector.get_buffer("null_tokens"))

    def compute_key_values(
        self,
        tokens: torch.Tensor,
        keep_audio: torch.Tensor | None = None,
        dtype: torch.dtype | None = None,
        level_scales: Mapping[str, float] | None = None,
    ) -> AudioStates:
        """Compute the keys and values of all layers for the UNet's `CROSS_ATTENTION_KWARG`.

        Args:
            tokens: Level tokens (B, J, D).
            keep_audio: Boolean mask (B,), false for rows without audio. Defaults to all true.
            dtype: Data type of the result, that of the UNet. Defaults to the adapter's own.
            level_scales: Scale of single levels by name. A level with scale 0 is left out, because
                its keys would still take attention from the others.

        Returns:
            Keys and values by name of the cross-attention.

        Raises:
            ValueError: If a level does not exist.
        """
        tokens = self.projector.project_levels(tokens)
        weights = token_weights(self.level_weights(), level_scales)
        row_scale = (
            tokens.new_ones(len(tokens)) if keep_audio is None else keep_audio.to(tokens.dtype)
        )
        audio: AudioStates = {}
        for name in self.config.layers:
            levels = ROUTINGS[self.config.routing][block_of(name)]
            indices = level_indices(
                [level for level in levels if (level_scales or {}).get(level) != 0]
            )
            if not indices:
                continue
            layer = self.layer(name)
            key_values = layer(tokens[:, indices], weights[indices], row_scale[:, None, None])
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
        """Apply `project` and `compute_key_values`.

        Args:
            tokens: Audio tokens (B, S, H).
            mask: Boolean mask (B, S), true for valid tokens.
            embeds: Prompt embeds (B, L, D) of the same clips.
            keep_audio: Boolean mask (B,), false for rows without audio. Defaults to all true.
            dtype: Data type of the result. Defaults to the adapter's own.

        Returns:
            Keys and values by name of the cross-attention.
        """
        return self.compute_key_values(self.project(tokens, mask, embeds), keep_audio, dtype)


def _key(name: str) -> str:
    return name.replace(".", "/")  # module names must not contain dots
