"""The cross-attentions of a UNet that can hear, and by what a UNet is known again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

# The processors whose text part ours computes with the same operations.
SUPPORTED_PROCESSORS = (
    "AttnProcessor",
    "AttnProcessor2_0",
    "AudioAttnProcessor",
    "SonicAttnProcessor",
)
UNET_BLOCKS = ("down", "mid", "up")
# First weights of the UNet's first convolution: the same for every precision and folder it is
# loaded from, different for bases trained apart.
FINGERPRINT_SIZE = 16
FINGERPRINT_TOLERANCE = 0.02  # of the fingerprint's own norm


def block_of(name: str) -> str:
    """The part of the UNet, "down", "mid" or "up", that a module's name lies in."""
    return name.split("_")[0]


def cross_attentions(unet: Any, blocks: Sequence[str] = UNET_BLOCKS) -> dict[str, Any]:
    """The text cross-attentions of some blocks by name, in the UNet's order.

    Raises:
        ValueError: a block is not one of down, mid, up, or there is nothing in them.
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
    """A linear layer without the LoRA that peft may have put around it."""
    return getattr(layer, "base_layer", layer)


def fingerprint(unet: Any) -> list[float]:
    """What the UNet is known again by."""
    first = base_layer(unet.conv_in).weight.detach().flatten()[:FINGERPRINT_SIZE]
    return [round(value, 5) for value in first.float().tolist()]


def matches_fingerprint(unet: Any, known: Sequence[float]) -> bool:
    """Whether the UNet has this fingerprint, whatever its precision."""
    own = torch.tensor(fingerprint(unet))
    then = torch.tensor(list(known))
    return own.shape == then.shape and bool(
        (own - then).norm() <= FINGERPRINT_TOLERANCE * then.norm()
    )


def check_base_model(unet: Any, config: Any, ignore_base_model_mismatch: bool) -> None:
    """Refuses a UNet that an adapter does not belong to or cannot stand in.

    Args:
        unet: the one to attach to.
        config: the adapter's.
        any_base: accept other weights of the same sizes.

    Raises:
        ValueError: with both bases' names.
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
        own = getattr(unet.config, "_name_or_path", "").removesuffix("/unet") or "a fresh UNet"
        hint = " (or any_base=True, to try a relative of it)" if fits else ""
        raise ValueError(
            f"this adapter was trained for {config.base_model!r}, not for {own!r}: "
            f"give the base that it belongs to{hint}"
        )
    for layer in config.layers:
        kind = type(attentions[layer].processor).__name__
        if kind not in SUPPORTED_PROCESSORS:
            raise ValueError(
                f"the UNet's attention is processed by {kind} (an IP-Adapter, attention slicing?): "
                "take that off first, the sound cannot stand beside it"
            )


def check_compatible(attached: Mapping[str, Any], adapter: Any, name: str) -> None:
    """Refuses an adapter that cannot stand beside those (by name) that are attached.

    Raises:
        ValueError: its name is taken, or it has another form.
    """
    if name in attached:
        raise ValueError(f"an adapter is attached as {name!r} already: give another name")
    others = {other.config.attention_type for other in attached.values()} - {
        adapter.config.attention_type
    }
    if others:
        raise ValueError(
            f"adapters of the forms {adapter.config.attention_type} and {others.pop()} do not mix: "
            "detach the other first"
        )
