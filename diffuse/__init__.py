"""Sound heard inside the UNet of a diffusion pipeline.

    from diffuse import SoundPipeline

    pipe = SoundPipeline.from_pretrained("mini", encoder="runs/align/mini")
    pipe("dog.wav", prompt="a picture at night").images

Names are imported when they are first used: importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "AdapterConfig": "diffuse.models.configuration",
    "AttachedAdapters": "diffuse.models.attach",
    "SoundAdapter": "diffuse.models.adapter",
    "SoundPipeline": "diffuse.pipelines.sound_pipeline",
    "attach": "diffuse.models.attach",
}
__all__ = ["AdapterConfig", "AttachedAdapters", "SoundAdapter", "SoundPipeline", "attach"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'diffuse' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
