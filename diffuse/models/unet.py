"""The cross-attention modules of a UNet and its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

# Processors whose attention to the text `AudioAttnProcessor` reproduces exactly.
SUPPORTED_PROCESSORS = (
    "AttnProcessor",
    "AttnProcessor2_0",
    "AudioAttnProcessor",
    "SonicAttnProcessor",
)
UNET_BLOCKS = ("down", "mid", "up")
# Number of weights of the first convolution: independent of precision and folder, different for
# independently trained base models.
FINGERPRINT_SIZE = 16
FINGERPRINT_TOLERANCE = 0.02  # relative to the norm of the fingerprint


def block_of(name: str) -> str:
    """Return the block of the UNet, "down", "mid" or "up", that contains a module.

    Args:
        name: Name of the module.
    """
    return name.split("_")[0]


def cross_attentions(unet: Any, blocks: Sequence[str] = UNET_BLOCKS) -> dict[str, Any]:
    """Find the text cross-attention modules of a UNet.

    Args:
        unet: The UNet.
        blocks: Blocks to search: down, mid, up.

    Returns:
        Modules by name, in the order of the UNet.

    Raises:
        ValueError: If a block is not one of down, mid and up, or no module is found.
    """
    wrong = [block for block in blocks if block not in UNET_BLOCKS]
    if wrong:
        raise ValueError(f"blocks are {', '.join(UNET_BLOCKS)}, not {', '.join(map(repr, wrong))}")
    found = {
        name: module
        for name, module in unet.named_modules()
        if name.endswith(".attn2") and block_of(name) in blocks
    }
    if not found:
        raise ValueError(
            f"this UNet ({type(unet).__name__}) has no text cross-attention in the blocks "
            f"{', '.join(blocks) or '(none given)'}"
        )
    return found


def base_layer(layer: Any) -> Any:
    """Return a linear layer without the LoRA that peft may have wrapped around it."""
    return getattr(layer, "base_layer", layer)


def fingerprint(unet: Any) -> list[float]:
    """Return the fingerprint of a UNet: the first weights of its first convolution."""
    first = base_layer(unet.conv_in).weight.detach().flatten()[:FINGERPRINT_SIZE]
    return [round(value, 5) for value in first.float().tolist()]


def matches_fingerprint(unet: Any, known: Sequence[float]) -> bool:
    """Return whether a UNet has a fingerprint, in any precision.

    Args:
        unet: The UNet.
        known: Fingerprint to compare with.
    """
    own = torch.tensor(fingerprint(unet))
    other = torch.tensor(list(known))
    return own.shape == other.shape and bool(
        (own - other).norm() <= FINGERPRINT_TOLERANCE * other.norm()
    )


def check_base_model(unet: Any, config: Any, ignore_base_model_mismatch: bool) -> None:
    """Check that an adapter fits a UNet.

    Args:
        unet: UNet to attach to.
        config: Configuration of the adapter.
        ignore_base_model_mismatch: Accept other weights of the same shapes.

    Raises:
        ValueError: If the adapter belongs to another base model, or the UNet has incompatible
            attention processors.
    """
    attentions = cross_attentions(unet)
    widths = {
        name: base_layer(attention.to_k).out_features
        for name, attention in attentions.items()
        if base_layer(attention.to_k).in_features == config.prompt_width
    }
    fits = all(widths.get(layer) == width for layer, width in config.layers.items())
    if not fits or not (
        ignore_base_model_mismatch or matches_fingerprint(unet, config.fingerprint)
    ):
        own = getattr(unet.config, "_name_or_path", "").removesuffix("/unet") or "a new UNet"
        hint = ", or pass ignore_base_model_mismatch=True for a fine-tuned one" if fits else ""
        raise ValueError(
            f"this adapter was trained for {config.base_model!r}, not for {own!r}: "
            f"use the base model that it belongs to{hint}"
        )
    for layer in config.layers:
        kind = type(attentions[layer].processor).__name__
        if kind not in SUPPORTED_PROCESSORS:
            raise ValueError(
                f"the UNet's attention processor is {kind} (an IP-Adapter or attention slicing?), "
                "which cannot be combined with audio: remove it first"
            )


def check_compatible(attached: Mapping[str, Any], adapter: Any, name: str) -> None:
    """Check that an adapter can be attached beside others.

    Args:
        attached: Attached adapters by name.
        adapter: Adapter to attach.
        name: Name of the adapter.

    Raises:
        ValueError: If the name is taken, or the adapters have different attention types.
    """
    if name in attached:
        raise ValueError(f"an adapter is already attached as {name!r}: give another name")
    others = {other.config.attention_type for other in attached.values()} - {
        adapter.config.attention_type
    }
    if others:
        raise ValueError(
            f"adapters with attention types {adapter.config.attention_type} and {others.pop()} "
            "cannot be combined: detach the other first"
        )
