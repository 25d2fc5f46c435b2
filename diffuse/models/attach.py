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
from diffuse.models.attention_processor import SonicAttnProcessor, new_processor
from diffuse.models.conditioning import AudioConditioning
from diffuse.models.hooks import AdapterScale, AudioInjector, WeightedTokens
from diffuse.models.lora import add_lora, load_lora, lora_parameters, remove_lora, scale_lora
from diffuse.models.unet import check_base_model, check_compatible, cross_attentions


class AttachedAdapters:
    """What is attached to one UNet; `attach` makes it.

    Attributes:
        unet: the base's.
        adapters: by name.
    """

    def __init__(self, unet: Any, pipeline: Any = None) -> None:
        self.unet = unet
        self.adapters: dict[str, SoundAdapter] = {}
        self._injector = AudioInjector(pipeline, self.adapters)
        self._attentions: dict[str, Any] = {}  # with their processors, by name
        self._processors: dict[str, Any] = {}
        self._hooks = [
            unet.register_forward_pre_hook(self._check_processors),
            *self._injector.register_hooks(unet),
        ]

    def add(self, adapter: SoundAdapter, name: str) -> None:
        """Adds an adapter; `attach` has checked that it belongs here."""
        attentions = cross_attentions(self.unet)
        for layer in adapter.config.layers:
            if layer not in self._processors:
                made = new_processor(
                    self.unet, layer, attentions[layer], adapter.config.attention_type
                )
                attentions[layer].set_processor(made)
                self._attentions[layer], self._processors[layer] = attentions[layer], made
        self.adapters[name], self._injector.scales[name] = adapter, AdapterScale()
        adapter.to(self.unet.device)
        config = adapter.config
        if adapter.lora_folder is not None:
            load_lora(self.unet, name, adapter.lora_folder)
        elif config.lora_rank:
            alpha = config.lora_rank if config.lora_alpha is None else config.lora_alpha
            add_lora(self.unet, name, config.lora_rank, alpha, config.lora_targets)
        self._injector.clear_cache()

    def _check_processors(self, *_: Any) -> None:
        attentions = self._attentions
        if any(
            attentions[n].processor is not processor for n, processor in self._processors.items()
        ):
            raise RuntimeError(
                "the UNet's attention processors were replaced after the sound adapter was "
                "attached, so it cannot be heard: detach it, set processors, attach it again"
            )

    def project(self, conditioning: AudioConditioning) -> dict[str, torch.Tensor]:
        """Level tokens (B, J, D) of recordings, by the adapters' names."""
        where = self.unet.device
        tokens, mask, embeds = (
            c.to(where) for c in (conditioning.tokens, conditioning.mask, conditioning.embeds)
        )
        with torch.no_grad():
            return {n: a.project(tokens, mask, embeds) for n, a in self.adapters.items()}

    def play(
        self,
        audio: AudioConditioning | Mapping[str, torch.Tensor | WeightedTokens],
        guided: bool | None = None,
    ) -> None:
        """Sets what the pipeline's next calls hear.

        Args:
            sound: recordings, one a prompt or one for all; or by the adapters' names, what
                `project` made of them, or several such with their weights, heard together.
            guided: whether the UNet's batches begin with an unconditional half; by default the
                pipeline tells. Say it for another pipeline on the same UNet, or see `set_pipeline`.
        """
        given = self.project(audio) if isinstance(audio, AudioConditioning) else audio
        weighted_tokens = {
            name: [(1.0, tokens)] if isinstance(tokens, torch.Tensor) else list(tokens)
            for name, tokens in given.items()
        }
        self._injector.set_audio(weighted_tokens, guided)

    def adapter_weights(self) -> dict[str, float]:
        """How much each adapter counts, by name."""
        return {name: adapter_scale.weight for name, adapter_scale in self._injector.scales.items()}

    def clear_audio(self) -> None:
        """Nothing is heard: the base with its LoRA."""
        self._injector.set_audio({}, None)

    def set_pipeline(self, pipeline: Any) -> None:
        """Lets another pipeline on the same UNet tell whether its calls are guided."""
        self._injector.pipeline = pipeline

    def set_audio_scale(
        self,
        scale: float = 1.0,
        *,
        level_scales: Mapping[str, float] | None = None,
        audio_interval: tuple[float, float] = (0.0, 1.0),
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
        for which in self._adapter_names(name):
            adapter_scale = self._injector.scales[which]
            self._injector.scales[which] = replace(
                adapter_scale,
                scale=scale,
                level_scales=dict(level_scales or {}),
                audio_interval=audio_interval,
            )
        self._injector.clear_cache()

    def set_audio_guidance_scale(self, guidance_scale: float | None) -> None:
        """Guides by the sound apart from the text; None guides by both together."""
        self._injector.set_audio_guidance_scale(guidance_scale)

    def set_lora_scale(self, scale: float = 1.0, name: str | None = None) -> None:
        """Sets how much the adapters' LoRA counts; at 0 it is off."""
        for which in self._adapter_names(name):
            scale_lora(self.unet, which, scale)

    def set_adapter_weights(self, weights: Mapping[str, float]) -> None:
        """Mixes adapters: each one's sound and LoRA count by its weight; ValueError if none."""
        adapter_scales = self._injector.scales
        chosen = {n: w for name, w in weights.items() for n in self._adapter_names(name)}
        adapter_scales.update({n: replace(adapter_scales[n], weight=w) for n, w in chosen.items()})
        for name, weight in chosen.items():
            scale_lora(self.unet, name, weight)
        self._injector.clear_cache()

    def _adapter_names(self, name: str | None) -> list[str]:
        if name is not None and name not in self.adapters:
            there = ", ".join(self.adapters) or "none"
            raise ValueError(f"no adapter is attached as {name!r}; there are: {there}")
        return list(self.adapters) if name is None else [name]

    def group_parameters(self, group: str, name: str | None = None) -> list[nn.Parameter]:
        """Weights by what they are, a key of `SoundAdapter.parts` or "lora"; ValueError if none."""
        found: list[nn.Parameter] = []
        for which in self._adapter_names(name):
            lora = list(lora_parameters(self.unet, which).values())
            groups = {**self.adapters[which].parameter_groups, "lora": lora}
            if group not in groups:
                raise ValueError(f"there is no part {group!r}; there are: {', '.join(groups)}")
            found += groups[group]
        return found

    def train_only(self, *groups: str, name: str | None = None) -> list[nn.Parameter]:
        """Makes these parts trainable and nothing else of the UNet and its adapters.

        Returns: their weights.

        Raises:
            ValueError: there is no such part or adapter, or nothing in one of them.
        """
        chosen = {part: self.group_parameters(part, name) for part in groups}
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
        names = self._adapter_names(name)
        if len(names) != 1:
            raise ValueError(f"say which adapter to save: {', '.join(names)}")
        folders.save_adapter(self.adapters[names[0]], folder, self.unet, names[0])

    def detach(self, name: str | None = None) -> None:
        """Takes one adapter off, or all: then the UNet is the base again, bit for bit."""
        for which in self._adapter_names(name):
            del self.adapters[which], self._injector.scales[which]
            remove_lora(self.unet, which)
        self._injector.set_audio({}, None)
        needed = {layer for a in self.adapters.values() for layer in a.config.layers}
        for layer in [n for n in self._processors if n not in needed]:
            processor, attention = self._processors.pop(layer), self._attentions.pop(layer)
            if attention.processor is processor:
                attention.set_processor(processor.base_processor)
            if isinstance(processor, SonicAttnProcessor):
                processor.remove()
        if not self.adapters:
            for hook in self._hooks:
                hook.remove()
            del self.unet.sound_attachment


def attach(
    target: Any,
    adapter: SoundAdapter | str | Path,
    name: str = "adapter",
    *,
    ignore_base_model_mismatch: bool = False,
) -> AttachedAdapters:
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
        adapter = folders.load_adapter(adapter)
    pipeline, unet = (None, target) if isinstance(target, nn.Module) else (target, target.unet)
    attached: AttachedAdapters | None = getattr(unet, "attached_audio_adapters", None)
    check_base_model(unet, adapter.config, ignore_base_model_mismatch)
    if attached is not None:
        check_compatible(attached.adapters, adapter, name)
    if attached is None:
        attached = unet.sound_attachment = AttachedAdapters(unet, pipeline)
    elif pipeline is not None:
        attached.set_pipeline(pipeline)
    attached.add(adapter, name)
    return attached


def attach_adapters(pipeline: Any, adapter: Any) -> tuple[AttachedAdapters | None, dict[str, str]]:
    """Attaches adapters; the attachment, and what each name stands for.

    Args:
        pipeline: a diffusers pipeline.
        adapter: a sound adapter, its folder, or several of either by name; None for none.

    Raises:
        ValueError: one cannot be read, or belongs to another base.
    """
    given = adapter if isinstance(adapter, Mapping) else {"adapter": adapter}
    attached: AttachedAdapters | None = None
    names: dict[str, str] = {}
    for name, one in given.items():
        if one is not None:
            attached = attach(pipeline, one, name)
            names[name] = str(one) if isinstance(one, (str, Path)) else name
    return attached, names


def get_attached(pipeline: Any) -> AttachedAdapters | None:
    """What is attached to a pipeline's UNet."""
    found: AttachedAdapters | None = getattr(pipeline.unet, "attached_audio_adapters", None)
    return found


def detach_adapters(pipeline: Any) -> None:
    """Takes off whatever adapters a pipeline's UNet wears: it is the base again, bit for bit."""
    attached = get_attached(pipeline)
    if attached is not None:
        attached.detach()


def model_metadata(pipeline: Any, attached: AttachedAdapters | None) -> dict[str, Any]:
    """How a pipeline computes, as settings tell it: what decides a picture beside its arguments."""
    return {
        "scheduler": type(pipeline.scheduler).__name__,
        "torch_dtype": str(pipeline.unet.dtype).removeprefix("torch."),
        "adapter_weights": None if attached is None else attached.adapter_weights(),
    }
