"""Which sound adapters a pipeline's UNet wears: put on when it is loaded, exchanged later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffuse.attachment import Attachment, attach


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
