"""The two sides of a base pipeline, each loaded without the other: its text, its pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from align.prompts.pipelines import non_clip_encoders
from align.registry import BASE_MODELS, first_line, lookup

# What is never loaded: its share of the prompt is left to the pipeline, which fills it with zeros.
EXCLUDED_ENCODER = "T5"


def load_text_side(base_model: str, **options: Any) -> Any:
    """A base's pipeline with nothing but its CLIP text encoders and tokenizers.

    Args:
        base: a short name, a folder or a hub id of a pipeline.
        options: for `DiffusionPipeline.from_pretrained`.

    Raises:
        OSError: there is no such base.
        ValueError: it reads no CLIP text encoder, or embeds that are not CLIP's.
    """
    components = _components(base_model)
    # Of what draws, and of what looks at pictures, nothing is needed to encode a caption.
    text_prefixes = ("text_encoder", "tokenizer", "scheduler")
    absent = [name for name in components if not name.startswith(text_prefixes)] + _t5_components(
        components
    )
    encoders = [
        kind for name, (_, kind) in components.items() if kind and name[:12] == "text_encoder"
    ]
    if not any("CLIP" in kind for kind in encoders):
        raise ValueError(f"{base_model} reads no CLIP text encoder: give a base that does")
    if others := non_clip_encoders(encoders):
        raise ValueError(
            f"{base_model} reads the embeds of {', '.join(others)}: give a base of CLIP's"
        )
    pipeline = _load(base_model, absent, components, {"dtype": torch.float32} | options)
    if "transformer" in components:
        # Without T5 the width of its share is asked of the transformer's configuration.
        config = component_config(base_model, "transformer", components["transformer"][1])
        pipeline.transformer = SimpleNamespace(config=SimpleNamespace(**config))
    return pipeline


def load_image_side(base_model: str, **options: Any) -> Any:
    """A base's pipeline without text encoders, tokenizers or safety checker.

    Args:
        base: a short name, a folder or a hub id of a pipeline.
        options: for `DiffusionPipeline.from_pretrained`.

    Raises:
        OSError: there is no such base.
    """
    components = _components(base_model)
    absent = [name for name in components if name.startswith(("text_encoder", "tokenizer"))]
    image_inputs = ("safety_checker", "feature_extractor", "image_encoder")
    return _load(
        base_model,
        [*absent, *(name for name in components if name in image_inputs)],
        components,
        options,
    )


def has_unet(base_model: str) -> bool:
    """Whether a base draws by a UNet, not by a transformer.

    Raises:
        OSError: there is no such base.
    """
    return "unet" in _components(base_model)


def component_config(base_model: str, component: str, kind: str) -> dict[str, Any]:
    """The configuration of a part of a base, without its weights."""
    import diffusers

    return dict(
        getattr(diffusers, kind).load_config(lookup(BASE_MODELS, base_model), subfolder=component)
    )


def _components(base_model: str) -> dict[str, list[str]]:
    """A pipeline's parts by name, each with its library and class."""
    from diffusers import DiffusionPipeline

    try:
        index = DiffusionPipeline.load_config(lookup(BASE_MODELS, base_model))
    except OSError as error:
        reason = first_line(error)
        raise OSError(
            f"there is no pipeline {base_model!r}: give a folder with model_index.json, or a hub id "
            f"that can be reached ({reason})"
        ) from error
    # A part is a pair; longer lists are settings.
    return {k: list(v) for k, v in index.items() if isinstance(v, (list, tuple)) and len(v) == 2}


def _t5_components(components: dict[str, list[str]]) -> list[str]:
    encoders = [
        name for name, (_, kind) in components.items() if str(kind).startswith(EXCLUDED_ENCODER)
    ]
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in encoders]
    return encoders + [name for name in tokenizers if name in components]


def _load(
    base_model: str, absent: list[str], components: dict[str, list[str]], options: dict[str, Any]
) -> Any:
    from diffusers import DiffusionPipeline

    # A part that the base itself lacks must be said to be missing as well.
    missing = [name for name, (library, _) in components.items() if library is None]
    without: dict[str, Any] = dict.fromkeys(absent + missing)
    if "safety_checker" in without:
        without["requires_safety_checker"] = False
    return DiffusionPipeline.from_pretrained(lookup(BASE_MODELS, base_model), **(without | options))
