"""SoundPrompt: generate images from sound with Stable Diffusion.

    from soundprompt import AudioPromptEncoder

    encoder = AudioPromptEncoder.from_pretrained("runs/align/mini")
    image = pipeline(**encoder.encode_prompt("dog.wav")).images[0]

The public names of `align` and `diffuse`, imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY_IMPORTS = {
    "AdapterConfig": "diffuse",
    "AlignTrainer": "align",
    "AttachedAdapters": "diffuse",
    "AudioError": "align",
    "AudioPromptConfig": "align",
    "AudioPromptEncoder": "align",
    "PromptSpace": "align",
    "SoundAdapter": "diffuse",
    "SoundPipeline": "diffuse",
    "attach": "diffuse",
    "check_prompt": "align",
}
__all__ = [
    "AdapterConfig",
    "AlignTrainer",
    "AttachedAdapters",
    "AudioError",
    "AudioPromptConfig",
    "AudioPromptEncoder",
    "PromptSpace",
    "SoundAdapter",
    "SoundPipeline",
    "__version__",
    "attach",
    "check_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'soundprompt' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
