"""The sound adapter: all that a UNet needs in order to hear, without the UNet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffuse.models.attention_processor import Audio, AudioLayer
from diffuse.models.configuration import FORMS, AdapterConfig
from diffuse.models.levels import (
    LEVELS,
    ROUTINGS,
    heard_places,
    level_weights,
    moved_behind,
    token_weights,
)
from diffuse.models.memory import LevelRecall
from diffuse.models.projector import LevelProjector
from diffuse.models.unet import cross_attentions, fingerprint, part_of, plain


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
        self.recall: LevelRecall | None = None
        if config.recall:
            self.recall = LevelRecall(config.recall, config.prompt_width)
        kind = FORMS[config.form]
        self.layers = nn.ModuleDict(
            {_key(name): kind(config.prompt_width, c) for name, c in config.layers.items()}
        )
        self.level_logits = nn.Parameter(torch.zeros(len(LEVELS)))
        self.register_buffer("temperature", torch.ones(()))
        self.lora_folder: Path | None = None  # where a loaded adapter's LoRA lies

    @classmethod
    def of(
        cls, unet: Any, encoder: Any, config: AdapterConfig, space: str | None = None
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
        space = space or config.space or encoder.config.default_space
        head = encoder.head(space)
        attentions = cross_attentions(unet, config.blocks)
        width = plain(next(iter(attentions.values())).to_k).in_features
        if head.space.width != width:
            raise ValueError(
                f"the encoder's prompts for {space!r} are {head.space.width} wide and "
                f"{config.base!r} reads {width}: align an encoder with this base"
            )
        config.space, config.prompt_width = space, width
        config.prompt_length = head.space.length
        config.token_width = encoder.backbone.token_width
        config.layers = {n: plain(a.to_k).out_features for n, a in attentions.items()}
        config.fingerprint = fingerprint(unet)
        adapter = cls(config)
        for name, attention in attentions.items():
            adapter.layer(name).start_from(attention)
        null = head.null(1).embeds.to(head.statistics().spread)
        adapter.projector.set_space(head.statistics().spread.mean(0), null)
        return adapter

    def layer(self, name: str) -> AudioLayer:
        """The layer of a cross-attention by the attention's name."""
        found = self.layers[_key(name)]
        assert isinstance(found, AudioLayer)
        return found

    @property
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The weights by the names that training stages use: each is in exactly one part."""
        projector, layers = (
            list(module.named_parameters()) for module in (self.projector, self.layers)
        )
        return {
            "projector": [p for n, p in projector if not n.startswith("placing.")],
            "placing": list(self.projector.placing.parameters()),
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
        if self.recall is not None:
            found = self.recall(found, self.projector.get_buffer("spread"))
        return found

    def remember(self, recall: LevelRecall | None) -> None:
        """Has the level tokens follow what is remembered; None for nothing any more."""
        self.recall = None if recall is None else recall.to(self.level_logits.device)
        self.config.recall = {} if recall is None else recall.sizes

    def behind(self, tokens: torch.Tensor) -> torch.Tensor:
        """Level tokens (B, J, D) with what is heard in front put behind."""
        return moved_behind(tokens, self.projector.get_buffer("nothing"))

    def listen(
        self,
        tokens: torch.Tensor,
        keep: torch.Tensor | None = None,
        dtype: torch.dtype | None = None,
        scales: Mapping[str, float] | None = None,
    ) -> Audio:
        """What every layer hears of level tokens, for the UNet's `attention.CHANNEL`.

        Args:
            tokens: (B, J, D).
            keep: (B,) bool, false where a row shall hear silence; all true by default.
            dtype: of the result: the UNet's; the adapter's own by default.
            scales: of single levels by name. One at 0 is not there at all: its keys would still
                draw attention away from the others.

        Raises:
            ValueError: a scale's level does not exist.
        """
        tokens = self.projector.place(tokens)
        weights = token_weights(self.level_weights(), scales)
        strength = tokens.new_ones(len(tokens)) if keep is None else keep.to(tokens.dtype)
        audio: Audio = {}
        for name in self.config.layers:
            levels = ROUTINGS[self.config.routing][part_of(name)]
            where = heard_places([level for level in levels if (scales or {}).get(level) != 0])
            if not where:
                continue
            layer = self.layer(name)
            sound = layer(tokens[:, where], weights[where], strength[:, None, None])
            audio[name] = [sound.to(tokens.device, dtype or sound.values.dtype)]
        return audio

    def forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        embeds: torch.Tensor,
        keep: torch.Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Audio:
        """`project` and `listen` in one."""
        return self.listen(self.project(tokens, mask, embeds), keep, dtype)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's name may hold no dot
