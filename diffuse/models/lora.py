"""The LoRA on a UNet that belongs to a sound adapter: added, scaled, saved and taken off.

LoRA of other people on the same UNet stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from align.models.weights import apply_umask

LORA_WEIGHTS_NAME = "pytorch_lora_weights.safetensors"  # the name that load_lora_weights looks for


def add_lora(unet: Any, name: str, rank: int, alpha: int, targets: tuple[str, ...]) -> None:
    """Puts a fresh LoRA, which changes nothing yet, on a UNet.

    Raises:
        ValueError: the UNet has no such layers, or a LoRA of that name.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights="gaussian"
    )
    with _KeepActiveAdapters(unet, name):
        unet.add_adapter(config, adapter_name=name)
    _upcast_lora(unet, name)


def load_lora(unet: Any, name: str, folder: Path) -> None:
    """Puts a saved LoRA on a UNet."""
    with _KeepActiveAdapters(unet, name):
        unet.load_lora_adapter(
            folder, prefix="unet", weight_name=LORA_WEIGHTS_NAME, adapter_name=name
        )
    _upcast_lora(unet, name)


class _KeepActiveAdapters:
    """LoRA that was active stays so beside a new one, which diffusers would make the only one."""

    def __init__(self, unet: Any, name: str) -> None:
        if name in getattr(unet, "peft_config", {}):
            raise ValueError(f"the UNet has a LoRA called {name!r} already: give another name")
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
    """The weights of a LoRA by their names in the UNet."""
    ours = (f".lora_A.{name}.", f".lora_B.{name}.")
    return {n: p for n, p in unet.named_parameters() if any(mark in n for mark in ours)}


def _upcast_lora(unet: Any, name: str) -> None:
    # In half precision small updates would round to nothing; peft casts around float32 weights.
    for parameter in lora_parameters(unet, name).values():
        parameter.data = parameter.data.to(torch.float32)


def scale_lora(unet: Any, name: str, scale: float) -> None:
    """Sets how much a LoRA counts; at 0 the UNet is the base, bit for bit."""
    check_finite(f"the scale of {name}'s LoRA", scale)
    for layer in _lora_layers(unet):
        if name in getattr(layer, "scaling", {}):
            layer.set_scale(name, scale)


def save_lora(unet: Any, name: str, folder: Path) -> None:
    """Writes a LoRA as diffusers does, so that stock `load_lora_weights` reads it."""
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
    """Takes a LoRA off; with the last one, what peft put around the UNet's layers goes too."""
    if name not in _lora_names(unet):
        return
    unet.delete_adapters(name)
    if not _lora_names(unet):
        unet.unload_lora()


def check_finite(name: str, value: float) -> None:
    """Refuses what is no number that could be computed with: of NaN and infinity all is black.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name} is a number, not {value}")
