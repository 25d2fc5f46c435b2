"""The two sides of a base pipeline, each loaded without the other: its text, its pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from align.prompts.pipelines import not_clip
from align.registry import BASES, first_line, lookup

# What is never loaded: its share of the prompt is left to the pipeline, which fills it with zeros.
LEFT_OUT = "T5"


def load_text_side(base: str, **options: Any) -> Any:
    """A base's pipeline with nothing but its CLIP text encoders and tokenizers.

    Args:
        base: a short name, a folder or a hub id of a pipeline.
        options: for `DiffusionPipeline.from_pretrained`.

    Raises:
        OSError: there is no such base.
        ValueError: it reads no CLIP text encoder, or embeds that are not CLIP's.
    """
    parts = _parts(base)
    # Of what draws, and of what looks at pictures, nothing is needed to encode a caption.
    wanted = ("text_encoder", "tokenizer", "scheduler")
    absent = [name for name in parts if not name.startswith(wanted)] + _t5(parts)
    encoders = [kind for name, (_, kind) in parts.items() if kind and name[:12] == "text_encoder"]
    if not any("CLIP" in kind for kind in encoders):
        raise ValueError(f"{base} reads no CLIP text encoder: give a base that does")
    if others := not_clip(encoders):
        raise ValueError(f"{base} reads the embeds of {', '.join(others)}: give a base of CLIP's")
    pipeline = _load(base, absent, parts, {"dtype": torch.float32} | options)
    if "transformer" in parts:
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
        reason = first_line(error)
        raise OSError(
            f"there is no pipeline {base!r}: give a folder with model_index.json, or a hub id "
            f"that can be reached ({reason})"
        ) from error
    # A part is a pair; longer lists are settings.
    return {k: list(v) for k, v in index.items() if isinstance(v, (list, tuple)) and len(v) == 2}


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
