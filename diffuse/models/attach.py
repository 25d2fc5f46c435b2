"""Sound adapters on a UNet: attached, played, scaled, mixed, trained in parts, and taken off.

attached = attach(pipeline, "runs/diffuse/mini")
attached.play(hear(encoder, ["dog.wav"]))
pipeline("a picture at night").images
attached.detach()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffuse.models import saving as folders
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attention_processor import SonicAttention, new_processor
from diffuse.models.conditioning import Heard
from diffuse.models.hooks import Parts, Player, Volume
from diffuse.models.lora import add_lora, load_lora, lora_parameters, remove_lora, scale_lora
from diffuse.models.unet import check_base, check_beside, cross_attentions


class Attachment:
    """What is attached to one UNet; `attach` makes it.

    Attributes:
        unet: the base's.
        adapters: by name.
    """

    def __init__(self, unet: Any, pipeline: Any = None) -> None:
        self.unet = unet
        self.adapters: dict[str, SoundAdapter] = {}
        self._player = Player(pipeline, self.adapters)
        self._attentions: dict[str, Any] = {}  # with their processors, by name
        self._processors: dict[str, Any] = {}
        self._hooks = [
            unet.register_forward_pre_hook(self._check_processors),
            *self._player.hook(unet),
        ]

    def add(self, adapter: SoundAdapter, name: str) -> None:
        """Adds an adapter; `attach` has checked that it belongs here."""
        attentions = cross_attentions(self.unet)
        for layer in adapter.config.layers:
            if layer not in self._processors:
                made = new_processor(self.unet, layer, attentions[layer], adapter.config.form)
                attentions[layer].set_processor(made)
                self._attentions[layer], self._processors[layer] = attentions[layer], made
        self.adapters[name], self._player.volumes[name] = adapter, Volume()
        adapter.to(self.unet.device)
        config = adapter.config
        if adapter.lora_folder is not None:
            load_lora(self.unet, name, adapter.lora_folder)
        elif config.lora_rank:
            alpha = config.lora_rank if config.lora_alpha is None else config.lora_alpha
            add_lora(self.unet, name, config.lora_rank, alpha, config.lora_targets)
        self._player.forget()

    def _check_processors(self, *_: Any) -> None:
        attentions = self._attentions
        if any(attentions[n].processor is not ours for n, ours in self._processors.items()):
            raise RuntimeError(
                "the UNet's attention processors were replaced after the sound adapter was "
                "attached, so it cannot be heard: detach it, set processors, attach it again"
            )

    def project(self, heard: Heard) -> dict[str, torch.Tensor]:
        """Level tokens (B, J, D) of recordings, by the adapters' names."""
        where = self.unet.device
        tokens, mask, embeds = (c.to(where) for c in (heard.tokens, heard.mask, heard.embeds))
        with torch.no_grad():
            return {n: a.project(tokens, mask, embeds) for n, a in self.adapters.items()}

    def play(
        self,
        sound: Heard | Mapping[str, torch.Tensor | Parts],
        guided: bool | None = None,
    ) -> None:
        """Sets what the pipeline's next calls hear.

        Args:
            sound: recordings, one a prompt or one for all; or by the adapters' names, what
                `project` made of them, or several such with their weights, heard together.
            guided: whether the UNet's batches begin with an unconditional half; by default the
                pipeline tells. Say it for another pipeline on the same UNet, or see `follow`.
        """
        given = self.project(sound) if isinstance(sound, Heard) else sound
        parts = {
            name: [(1.0, tokens)] if isinstance(tokens, torch.Tensor) else list(tokens)
            for name, tokens in given.items()
        }
        self._player.play(parts, guided)

    def weights(self) -> dict[str, float]:
        """How much each adapter counts, by name."""
        return {name: volume.weight for name, volume in self._player.volumes.items()}

    def silence(self) -> None:
        """Nothing is heard: the base with its LoRA."""
        self._player.play({}, None)

    def follow(self, pipeline: Any) -> None:
        """Lets another pipeline on the same UNet tell whether its calls are guided."""
        self._player.pipeline = pipeline

    def set_audio_scale(
        self,
        scale: float = 1.0,
        *,
        levels: Mapping[str, float] | None = None,
        steps: tuple[float, float] = (0.0, 1.0),
        name: str | None = None,
    ) -> None:
        """Sets how loud the sound is.

        Args:
            scale: 0 is the base (with the LoRA that is on), 1 as trained, more is louder.
            levels: scales of single levels by name.
            steps: heard only in this share of the noise schedule; (0, 0.5) is the noisy half.
            name: of one adapter; all by default.

        Raises:
            ValueError: there is no such adapter or level, or steps are no range.
        """
        for which in self._names(name):
            volume = self._player.volumes[which]
            self._player.volumes[which] = replace(
                volume, scale=scale, levels=dict(levels or {}), steps=steps
            )
        self._player.forget()

    def set_audio_guidance(self, guidance: float | None) -> None:
        """Guides by the sound apart from the text; None guides by both together."""
        self._player.guide(guidance)

    def set_lora_scale(self, scale: float = 1.0, name: str | None = None) -> None:
        """Sets how much the adapters' LoRA counts; at 0 it is off."""
        for which in self._names(name):
            scale_lora(self.unet, which, scale)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Mixes adapters: each one's sound and LoRA count by its weight; ValueError if none."""
        volumes = self._player.volumes
        chosen = {n: w for name, w in weights.items() for n in self._names(name)}
        volumes.update({n: replace(volumes[n], weight=w) for n, w in chosen.items()})
        for name, weight in chosen.items():
            scale_lora(self.unet, name, weight)
        self._player.forget()

    def _names(self, name: str | None) -> list[str]:
        if name is not None and name not in self.adapters:
            there = ", ".join(self.adapters) or "none"
            raise ValueError(f"no adapter is attached as {name!r}; there are: {there}")
        return list(self.adapters) if name is None else [name]

    def part(self, part: str, name: str | None = None) -> list[nn.Parameter]:
        """Weights by what they are, a key of `SoundAdapter.parts` or "lora"; ValueError if none."""
        found: list[nn.Parameter] = []
        for which in self._names(name):
            lora = list(lora_parameters(self.unet, which).values())
            parts = {**self.adapters[which].parts, "lora": lora}
            if part not in parts:
                raise ValueError(f"there is no part {part!r}; there are: {', '.join(parts)}")
            found += parts[part]
        return found

    def train_only(self, *parts: str, name: str | None = None) -> list[nn.Parameter]:
        """Makes these parts trainable and nothing else of the UNet and its adapters.

        Returns: their weights.

        Raises:
            ValueError: there is no such part or adapter, or nothing in one of them.
        """
        chosen = {part: self.part(part, name) for part in parts}
        empty = [part for part, weights in chosen.items() if not weights]
        if empty:
            raise ValueError(f"the adapter has no {', '.join(empty)} that could train")
        self.unet.requires_grad_(False)
        for adapter in self.adapters.values():
            adapter.requires_grad_(False)
        found = [weight for weights in chosen.values() for weight in weights]
        for weight in found:
            weight.requires_grad_(True)
        return found

    def save(self, folder: str | Path, name: str | None = None) -> None:
        """Writes the only adapter, or the one of this name, with its LoRA.

        Raises:
            ValueError: there are several and none is named.
        """
        names = self._names(name)
        if len(names) != 1:
            raise ValueError(f"say which adapter to save: {', '.join(names)}")
        folders.save(self.adapters[names[0]], folder, self.unet, names[0])

    def detach(self, name: str | None = None) -> None:
        """Takes one adapter off, or all: then the UNet is the base again, bit for bit."""
        for which in self._names(name):
            del self.adapters[which], self._player.volumes[which]
            remove_lora(self.unet, which)
        self._player.play({}, None)
        needed = {layer for a in self.adapters.values() for layer in a.config.layers}
        for layer in [n for n in self._processors if n not in needed]:
            ours, attention = self._processors.pop(layer), self._attentions.pop(layer)
            if attention.processor is ours:
                attention.set_processor(ours.replaced)
            if isinstance(ours, SonicAttention):
                ours.remove()
        if not self.adapters:
            for hook in self._hooks:
                hook.remove()
            del self.unet.sound_attachment


def attach(
    target: Any, adapter: SoundAdapter | str | Path, name: str = "sound", *, any_base: bool = False
) -> Attachment:
    """Lets a UNet hear by an adapter; a fresh one changes nothing until it is trained.

    Args:
        target: a diffusers pipeline, or a UNet.
        adapter: one, or the folder of one.
        name: by which it is scaled, mixed and detached.
        any_base: accept a base with other weights of the same sizes, such as a fine-tuned one.

    Raises:
        ValueError: the adapter belongs to another base, the UNet has attention processors that it
            cannot stand beside, or the name is taken.
    """
    if not isinstance(adapter, SoundAdapter):
        adapter = folders.load(adapter)
    pipeline, unet = (None, target) if isinstance(target, nn.Module) else (target, target.unet)
    attached: Attachment | None = getattr(unet, "sound_attachment", None)
    check_base(unet, adapter.config, any_base)
    if attached is not None:
        check_beside(attached.adapters, adapter, name)
    if attached is None:
        attached = unet.sound_attachment = Attachment(unet, pipeline)
    elif pipeline is not None:
        attached.follow(pipeline)
    attached.add(adapter, name)
    return attached


def put_on(pipeline: Any, adapter: Any) -> tuple[Attachment | None, dict[str, str]]:
    """Attaches adapters; the attachment, and what each name stands for.

    Args:
        pipeline: a diffusers pipeline.
        adapter: a sound adapter, its folder, or several of either by name; None for none.

    Raises:
        ValueError: one cannot be read, or belongs to another base.
    """
    given = adapter if isinstance(adapter, Mapping) else {"sound": adapter}
    attached: Attachment | None = None
    names: dict[str, str] = {}
    for name, one in given.items():
        if one is not None:
            attached = attach(pipeline, one, name)
            names[name] = str(one) if isinstance(one, (str, Path)) else name
    return attached, names


def worn(pipeline: Any) -> Attachment | None:
    """What is attached to a pipeline's UNet."""
    found: Attachment | None = getattr(pipeline.unet, "sound_attachment", None)
    return found


def take_off(pipeline: Any) -> None:
    """Takes off whatever adapters a pipeline's UNet wears: it is the base again, bit for bit."""
    attached = worn(pipeline)
    if attached is not None:
        attached.detach()


def told_models(pipeline: Any, attachment: Attachment | None) -> dict[str, Any]:
    """How a pipeline computes, as settings tell it: what decides a picture beside its arguments."""
    return {
        "scheduler": type(pipeline.scheduler).__name__,
        "dtype": str(pipeline.unet.dtype).removeprefix("torch."),
        "adapter_weights": None if attachment is None else attachment.weights(),
    }
