"""Attach audio adapters to a UNet, set the audio, scale, combine, train and detach them.

    attached = attach(pipeline, "runs/diffuse/mini")
    attached.play(encode_audio(encoder, ["dog.wav"]))
    pipeline("a picture at night").images
    attached.detach()

Detaching all adapters restores the UNet bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffuse.models import saving
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attention_processor import SonicAttnProcessor, new_processor
from diffuse.models.conditioning import AudioConditioning
from diffuse.models.hooks import AdapterScale, AudioInjector, WeightedTokens
from diffuse.models.lora import add_lora, load_lora, lora_parameters, remove_lora, scale_lora
from diffuse.models.unet import check_base_model, check_compatible, cross_attentions


class AttachedAdapters:
    """The audio adapters attached to a UNet, as returned by `attach`.

    Attributes:
        unet: UNet that the adapters are attached to.
        adapters: Attached adapters by name.
    """

    def __init__(self, unet: Any, pipeline: Any = None) -> None:
        self.unet = unet
        self.adapters: dict[str, SoundAdapter] = {}
        self._injector = AudioInjector(pipeline, self.adapters)
        self._attentions: dict[str, Any] = {}  # by name, like their processors
        self._processors: dict[str, Any] = {}
        self._hooks = [
            unet.register_forward_pre_hook(self._check_processors),
            *self._injector.register_hooks(unet),
        ]

    def add(self, adapter: SoundAdapter, name: str) -> None:
        """Add an adapter whose compatibility `attach` has checked.

        Args:
            adapter: Adapter to add.
            name: Name of the adapter.
        """
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
                "the UNet's attention processors were replaced after the audio adapter was "
                "attached, so it has no effect: detach it, set the processors, attach it again"
            )

    def project(self, conditioning: AudioConditioning) -> dict[str, torch.Tensor]:
        """Compute the level tokens of encoded audio with every adapter.

        Args:
            conditioning: Encoded clips.

        Returns:
            Level tokens (B, J, D) by adapter name.
        """
        device = self.unet.device
        tokens, mask, embeds = (
            c.to(device) for c in (conditioning.tokens, conditioning.mask, conditioning.embeds)
        )
        with torch.no_grad():
            return {n: a.project(tokens, mask, embeds) for n, a in self.adapters.items()}

    def play(
        self,
        audio: AudioConditioning | Mapping[str, torch.Tensor | WeightedTokens],
        guided: bool | None = None,
    ) -> None:
        """Set the audio that the next calls of the pipeline are conditioned on.

        Args:
            audio: Encoded clips, one per prompt or one for all prompts; or, by adapter name, level
                tokens from `project`, or several weighted level tokens to combine.
            guided: Whether the first half of the UNet's batch is unconditional. Defaults to what
                the pipeline reports. Pass it if another pipeline uses the same UNet, or call
                `set_pipeline`.
        """
        given = self.project(audio) if isinstance(audio, AudioConditioning) else audio
        weighted_tokens = {
            name: [(1.0, tokens)] if isinstance(tokens, torch.Tensor) else list(tokens)
            for name, tokens in given.items()
        }
        self._injector.set_audio(weighted_tokens, guided)

    def adapter_weights(self) -> dict[str, float]:
        """Return the weight of each adapter by name."""
        return {name: adapter_scale.weight for name, adapter_scale in self._injector.scales.items()}

    def clear_audio(self) -> None:
        """Remove the audio: the next calls use the base model and its LoRA only."""
        self._injector.set_audio({}, None)

    def set_pipeline(self, pipeline: Any) -> None:
        """Set the pipeline that reports whether its calls use classifier-free guidance.

        Args:
            pipeline: Pipeline that uses the same UNet.
        """
        self._injector.pipeline = pipeline

    def set_audio_scale(
        self,
        scale: float = 1.0,
        *,
        level_scales: Mapping[str, float] | None = None,
        audio_interval: tuple[float, float] = (0.0, 1.0),
        name: str | None = None,
    ) -> None:
        """Set the strength of the audio conditioning.

        Args:
            scale: 0 disables the audio (an attached LoRA stays active), 1 is the strength of
                training, higher values strengthen it.
            level_scales: Scale of single levels by name.
            audio_interval: Fraction of the noise schedule with audio conditioning, from 0 (noise)
                to 1 (image); (0, 0.5) is its noisier half.
            name: Name of an adapter. Defaults to all adapters.

        Raises:
            ValueError: If there is no such adapter or level, or audio_interval is not a range.
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
        """Set a separate guidance scale for the audio.

        Args:
            guidance_scale: Guidance scale of the audio. None guides text and audio together.
        """
        self._injector.set_audio_guidance_scale(guidance_scale)

    def set_lora_scale(self, scale: float = 1.0, name: str | None = None) -> None:
        """Set the scale of the adapters' LoRA.

        Args:
            scale: Scale; 0 disables the LoRA.
            name: Name of an adapter. Defaults to all adapters.
        """
        for which in self._adapter_names(name):
            scale_lora(self.unet, which, scale)

    def set_adapter_weights(self, weights: Mapping[str, float]) -> None:
        """Set the weights of several adapters, which scale both their audio and their LoRA.

        Args:
            weights: Weights by adapter name; other adapters keep theirs.

        Raises:
            ValueError: If there is no such adapter.
        """
        adapter_scales = self._injector.scales
        chosen = {n: w for name, w in weights.items() for n in self._adapter_names(name)}
        adapter_scales.update({n: replace(adapter_scales[n], weight=w) for n, w in chosen.items()})
        for name, weight in chosen.items():
            scale_lora(self.unet, name, weight)
        self._injector.clear_cache()

    def _adapter_names(self, name: str | None) -> list[str]:
        if name is not None and name not in self.adapters:
            names = ", ".join(self.adapters) or "none"
            raise ValueError(f"no adapter is attached as {name!r}; attached are: {names}")
        return list(self.adapters) if name is None else [name]

    def group_parameters(self, group: str, name: str | None = None) -> list[nn.Parameter]:
        """Return the parameters of a group.

        Args:
            group: Key of `SoundAdapter.parameter_groups`, or "lora".
            name: Name of an adapter. Defaults to all adapters.

        Raises:
            ValueError: If there is no such group or adapter.
        """
        found: list[nn.Parameter] = []
        for which in self._adapter_names(name):
            lora = list(lora_parameters(self.unet, which).values())
            groups = {**self.adapters[which].parameter_groups, "lora": lora}
            if group not in groups:
                raise ValueError(
                    f"there is no parameter group {group!r}; the groups are: {', '.join(groups)}"
                )
            found += groups[group]
        return found

    def train_only(self, *groups: str, name: str | None = None) -> list[nn.Parameter]:
        """Make parameter groups trainable and freeze all other parameters of UNet and adapters.

        Args:
            groups: Parameter groups, as `group_parameters` takes them.
            name: Name of an adapter. Defaults to all adapters.

        Returns:
            The trainable parameters.

        Raises:
            ValueError: If there is no such group or adapter, or a group is empty.
        """
        chosen = {group: self.group_parameters(group, name) for group in groups}
        empty = [group for group, weights in chosen.items() if not weights]
        if empty:
            raise ValueError(f"the adapter has no {', '.join(empty)} to train")
        self.unet.requires_grad_(False)
        for adapter in self.adapters.values():
            adapter.requires_grad_(False)
        found = [weight for weights in chosen.values() for weight in weights]
        for weight in found:
            weight.requires_grad_(True)
        return found

    def save(self, folder: str | Path, name: str | None = None) -> None:
        """Save an adapter and its LoRA.

        Args:
            folder: Output directory.
            name: Name of the adapter; required if several are attached.

        Raises:
            ValueError: If several adapters are attached and no name is given.
        """
        names = self._adapter_names(name)
        if len(names) != 1:
            raise ValueError(f"pass the name of the adapter to save: {', '.join(names)}")
        saving.save_adapter(self.adapters[names[0]], folder, self.unet, names[0])

    def detach(self, name: str | None = None) -> None:
        """Detach one adapter or all of them, which restores the base model bit for bit.

        Args:
            name: Name of an adapter. Defaults to all adapters.
        """
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
            del self.unet.attached_audio_adapters


def attach(
    target: Any,
    adapter: SoundAdapter | str | Path,
    name: str = "adapter",
    *,
    ignore_base_model_mismatch: bool = False,
) -> AttachedAdapters:
    """Attach an audio adapter to a UNet; an untrained adapter does not change its outputs.

    Args:
        target: Diffusers pipeline or UNet.
        adapter: Adapter, or the folder of a saved one.
        name: Name of the adapter for scaling, weighting and detaching it.
        ignore_base_model_mismatch: Accept a base model with other weights of the same shapes, such
            as a fine-tuned one.

    Returns:
        The adapters attached to the UNet.

    Raises:
        ValueError: If the adapter belongs to another base model, the UNet has incompatible
            attention processors, or the name is taken.
    """
    if not isinstance(adapter, SoundAdapter):
        adapter = saving.load_adapter(adapter)
    pipeline, unet = (None, target) if isinstance(target, nn.Module) else (target, target.unet)
    attached: AttachedAdapters | None = getattr(unet, "attached_audio_adapters", None)
    check_base_model(unet, adapter.config, ignore_base_model_mismatch)
    if attached is not None:
        check_compatible(attached.adapters, adapter, name)
    if attached is None:
        attached = unet.attached_audio_adapters = AttachedAdapters(unet, pipeline)
    elif pipeline is not None:
        attached.set_pipeline(pipeline)
    attached.add(adapter, name)
    return attached


def attach_adapters(pipeline: Any, adapter: Any) -> tuple[AttachedAdapters | None, dict[str, str]]:
    """Attach one or several audio adapters to a pipeline.

    Args:
        pipeline: Diffusers pipeline.
        adapter: Adapter, folder of one, or a mapping of names to either; None for no adapter.

    Returns:
        The attached adapters (None without any) and the source of each adapter by name.

    Raises:
        ValueError: If an adapter cannot be loaded, or belongs to another base model.
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
    """Return the adapters attached to the UNet of a pipeline, or None."""
    found: AttachedAdapters | None = getattr(pipeline.unet, "attached_audio_adapters", None)
    return found


def detach_adapters(pipeline: Any) -> None:
    """Detach all adapters from the UNet of a pipeline, which restores it bit for bit."""
    attached = get_attached(pipeline)
    if attached is not None:
        attached.detach()


def model_metadata(pipeline: Any, attached: AttachedAdapters | None) -> dict[str, Any]:
    """Return the settings of a pipeline that affect its images besides the call's arguments."""
    return {
        "scheduler": type(pipeline.scheduler).__name__,
        "torch_dtype": str(pipeline.unet.dtype).removeprefix("torch."),
        "adapter_weights": None if attached is None else attached.adapter_weights(),
    }
