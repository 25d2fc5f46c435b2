"""The two sides of a base pipeline, each loaded without the other: its text, its pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from align.names import BASES, lookup

# What draws, and what only looks at pictures: neither is needed to encode a caption.
PICTURE_SIDE = (
    "unet", "transformer", "vae", "safety_checker", "feature_extractor", "image_encoder",
)  # fmt: skip
# What is never loaded: its share of the prompt is left to the pipeline, which fills it with zeros.
LEFT_OUT = "T5"


def load_text_side(base: str, **options: Any) -> Any:
    """A base's pipeline with nothing but its CLIP text encoders and tokenizers.

    Args:
        base: a short name, a folder or a hub id of a pipeline.
        options: for `DiffusionPipeline.from_pretrained`.

    Raises:
        OSError: there is no such base.
        ValueError: it reads no CLIP text encoder.
    """
    parts = _parts(base)
    absent = [name for name in parts if name in PICTURE_SIDE] + _t5(parts)
    encoders = [name for name, (kind, _) in parts.items() if kind and name[:12] == "text_encoder"]
    texts = set(encoders) - set(absent)
    if not texts:
        raise ValueError(f"{base} reads no CLIP text encoder: give a base that does")
    pipeline = _load(base, absent, parts, {"dtype": torch.float32} | options)
    if "transformer" in absent:
        # Without T5 the width of its share is asked of the transformer's configuration.
        config = pipeline_config(base, "transformer", parts["transformer"][1])
        pipeline.transformer = SimpleNamespace(config=SimpleNamespace(**config))
    return pipeline


def load_picture_side(base: str, **options: Any) -> Any:
    """A base's pipeline without text encoders, tokenizers or safety checker.

    Args:
        base: a short name, a folder or a hub id of a pipeline.
        options: for `DiffusionPipeline.from_pretrained`.

    Raises:
        OSError: there is no such base.
    """
    parts = _parts(base)
    absent = [name for name in parts if name.startswith(("text_encoder", "tokenizer"))]
    looks = ("safety_checker", "feature_extractor", "image_encoder")
    return _load(base, [*absent, *(name for name in parts if name in looks)], parts, options)


def has_unet(base: str) -> bool:
    """Whether a base draws by a UNet, not by a transformer.

    Raises:
        OSError: there is no such base.
    """
    return "unet" in _parts(base)


def pipeline_config(base: str, part: str, kind: str) -> dict[str, Any]:
    """The configuration of a part of a base, without its weights."""
    import diffusers

    return dict(getattr(diffusers, kind).load_config(lookup(BASES, base), subfolder=part))


def _parts(base: str) -> dict[str, list[str]]:
    """A pipeline's parts by name, each with its library and class."""
    from diffusers import DiffusionPipeline

    try:
        index = DiffusionPipeline.load_config(lookup(BASES, base))
    except OSError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise OSError(
            f"there is no pipeline {base!r}: give a folder with model_index.json, or a hub id "
            f"that can be reached ({reason})"
        ) from error
    return {k: list(v) for k, v in index.items() if isinstance(v, (list, tuple))}


def _t5(parts: dict[str, list[str]]) -> list[str]:
    encoders = [name for name, (_, kind) in parts.items() if str(kind).startswith(LEFT_OUT)]
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in encoders]
    return encoders + [name for name in tokenizers if name in parts]


def _load(
    base: str, absent: list[str], parts: dict[str, list[str]], options: dict[str, Any]
) -> Any:
    from diffusers import DiffusionPipeline

    # A part that the base itself lacks must be said to be missing as well.
    lacking = [name for name, (library, _) in parts.items() if library is None]
    without: dict[str, Any] = dict.fromkeys(absent + lacking)
    if "safety_checker" in without:
        without["requires_safety_checker"] = False
    return DiffusionPipeline.from_pretrained(lookup(BASES, base), **(without | options))
