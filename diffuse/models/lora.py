"""The LoRA of an audio adapter on a UNet: add, load, scale, save and remove.

Other LoRA on the same UNet is not changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from align.models.weights import apply_umask

LORA_WEIGHTS_NAME = "pytorch_lora_weights.safetensors"  # the name load_lora_weights expects


def add_lora(unet: Any, name: str, rank: int, alpha: int, targets: tuple[str, ...]) -> None:
    """Add an untrained LoRA, which does not change the UNet's outputs.

    Args:
        unet: The UNet.
        name: Name of the LoRA.
        rank: LoRA rank.
        alpha: LoRA alpha.
        targets: Modules that the LoRA is applied to.

    Raises:
        ValueError: If the UNet has no such modules, or already a LoRA of that name.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights="gaussian"
    )
    with _KeepActiveAdapters(unet, name):
        unet.add_adapter(config, adapter_name=name)
    _upcast_lora(unet, name)


def load_lora(unet: Any, name: str, folder: Path) -> None:
    """Load a saved LoRA.

    Args:
        unet: The UNet.
        name: Name of the LoRA.
        folder: Folder of the adapter.
    """
    with _KeepActiveAdapters(unet, name):
        unet.load_lora_adapter(
            folder, prefix="unet", weight_name=LORA_WEIGHTS_NAME, adapter_name=name
        )
    _upcast_lora(unet, name)


class _KeepActiveAdapters:
    """Keep other LoRA active when one is added, which diffusers would deactivate."""

    def __init__(self, unet: Any, name: str) -> None:
        if name in getattr(unet, "peft_config", {}):
            raise ValueError(f"the UNet already has a LoRA named {name!r}: give another name")
        self._unet, self._name = unet, name
        self._before = [n for n in _lora_names(unet) if _is_active(unet, n)]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._before:
            self._unet.set_adapter([*self._before, self._name])


def _lora_names(unet: Any) -> list[str]:
    return list(getattr(unet, "peft_config", {}))


def _is_active(unet: Any, name: str) -> bool:
    return any(name in layer.active_adapters for layer in _lora_layers(unet))


def _lora_layers(unet: Any) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in unet.modules() if isinstance(module, BaseTunerLayer))


def lora_parameters(unet: Any, name: str) -> dict[str, nn.Parameter]:
    """Return the parameters of a LoRA by their names in the UNet.

    Args:
        unet: The UNet.
        name: Name of the LoRA.
    """
    markers = (f".lora_A.{name}.", f".lora_B.{name}.")
    return {n: p for n, p in unet.named_parameters() if any(mark in n for mark in markers)}


def _upcast_lora(unet: Any, name: str) -> None:
    # Half precision would round small updates to zero; peft casts float32 weights as needed.
    for parameter in lora_parameters(unet, name).values():
        parameter.data = parameter.data.to(torch.float32)


def scale_lora(unet: Any, name: str, scale: float) -> None:
    """Set the scale of a LoRA; at 0 the UNet equals the base model bit for bit.

    Args:
        unet: The UNet.
        name: Name of the LoRA.
        scale: The scale.

    Raises:
        ValueError: If the scale is not finite.
    """
    check_finite(f"the scale of {name}'s LoRA", scale)
    for layer in _lora_layers(unet):
        if name in getattr(layer, "scaling", {}):
            layer.set_scale(name, scale)


def save_lora(unet: Any, name: str, folder: Path) -> None:
    """Save a LoRA in diffusers' format, which `load_lora_weights` reads.

    Args:
        unet: The UNet.
        name: Name of the LoRA.
        folder: Output directory.
    """
    from diffusers import StableDiffusionPipeline
    from peft.utils import get_peft_model_state_dict

    weights = get_peft_model_state_dict(unet, adapter_name=name)
    peft_config = unet.peft_config[name].to_dict()
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in peft_config.items()}
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=weights, unet_lora_adapter_metadata=plain
    )
    apply_umask(folder)


def remove_lora(unet: Any, name: str) -> None:
    """Remove a LoRA; removing the last one also removes peft's wrapper layers.

    Args:
        unet: The UNet.
        name: Name of the LoRA.
    """
    if name not in _lora_names(unet):
        return
    unet.delete_adapters(name)
    if not _lora_names(unet):
        unet.unload_lora()


def check_finite(name: str, value: float) -> None:
    """Raise ValueError if a value is not finite: NaN and infinity generate black images.

    Args:
        name: Name of the value in the message.
        value: Value to check.

    Raises:
        ValueError: If the value is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
