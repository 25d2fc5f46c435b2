"""Load the text encoders or the image components of a base pipeline separately."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from align.prompts.pipelines import non_clip_encoders
from align.registry import BASE_MODELS, first_line, lookup

# Never loaded: the pipeline fills its part of the prompt embeds with zeros.
EXCLUDED_ENCODER = "T5"


def load_text_side(base_model: str, **options: Any) -> Any:
    """Load a pipeline with only its CLIP text encoders and tokenizers.

    Args:
        base_model: Short name, folder or Hub id of a pipeline.
        **options: Keyword arguments of `DiffusionPipeline.from_pretrained`.

    Raises:
        OSError: If there is no such pipeline.
        ValueError: If it has no CLIP text encoder, or takes embeds of other text encoders.
    """
    components = _components(base_model)
    # Encoding captions needs no denoiser, VAE or image encoder.
    text_prefixes = ("text_encoder", "tokenizer", "scheduler")
    absent = [name for name in components if not name.startswith(text_prefixes)] + _t5_components(
        components
    )
    encoders = [
        kind for name, (_, kind) in components.items() if kind and name[:12] == "text_encoder"
    ]
    if not any("CLIP" in kind for kind in encoders):
        raise ValueError(f"{base_model} has no CLIP text encoder: give a base model that has one")
    if others := non_clip_encoders(encoders):
        raise ValueError(
            f"{base_model} takes the embeds of {', '.join(others)}: "
            "give a base model with CLIP text encoders"
        )
    pipeline = _load(base_model, absent, components, {"dtype": torch.float32} | options)
    if "transformer" in components:
        # Without T5, the pipeline reads the width of its embeds from the transformer's config.
        config = component_config(base_model, "transformer", components["transformer"][1])
        pipeline.transformer = SimpleNamespace(config=SimpleNamespace(**config))
    return pipeline


def load_image_side(base_model: str, **options: Any) -> Any:
    """Load a pipeline without text encoders, tokenizers and safety checker.

    Args:
        base_model: Short name, folder or Hub id of a pipeline.
        **options: Keyword arguments of `DiffusionPipeline.from_pretrained`.

    Raises:
        OSError: If there is no such pipeline.
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
    """Return whether a base model denoises with a UNet rather than a transformer.

    Raises:
        OSError: If there is no such pipeline.
    """
    return "unet" in _components(base_model)


def component_config(base_model: str, component: str, kind: str) -> dict[str, Any]:
    """Load the configuration of one component of a base model, without its weights."""
    import diffusers

    return dict(
        getattr(diffusers, kind).load_config(lookup(BASE_MODELS, base_model), subfolder=component)
    )


def _components(base_model: str) -> dict[str, list[str]]:
    """Return the components of a pipeline: name to (library, class)."""
    from diffusers import DiffusionPipeline

    try:
        index = DiffusionPipeline.load_config(lookup(BASE_MODELS, base_model))
    except OSError as error:
        reason = first_line(error)
        raise OSError(
            f"there is no pipeline {base_model!r}: give a folder with model_index.json, or the id "
            f"of a Hub repository that can be reached ({reason})"
        ) from error
    # A component is a (library, class) pair; longer lists are settings.
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

    # Components that the base model itself lacks must be passed as None as well.
    missing = [name for name, (library, _) in components.items() if library is None]
    without: dict[str, Any] = dict.fromkeys(absent + missing)
    if "safety_checker" in without:
        without["requires_safety_checker"] = False
    return DiffusionPipeline.from_pretrained(lookup(BASE_MODELS, base_model), **(without | options))
