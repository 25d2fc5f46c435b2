"""Condition the UNet of a diffusion pipeline on audio.

    from diffuse import SoundPipeline

    pipe = SoundPipeline.from_pretrained("mini", encoder="runs/align/mini")
    pipe("dog.wav", prompt="a picture at night").images

Public names are imported lazily, so importing the package is cheap.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY_IMPORTS = {
    "AdapterConfig": "diffuse.models.configuration",
    "AttachedAdapters": "diffuse.models.attach",
    "SoundAdapter": "diffuse.models.adapter",
    "SoundPipeline": "diffuse.pipelines.sound_pipeline",
    "attach": "diffuse.models.attach",
}
__all__ = ["AdapterConfig", "AttachedAdapters", "SoundAdapter", "SoundPipeline", "attach"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'diffuse' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)
