"""Aligns sound with the text space of Stable Diffusion pipelines.

    from align import AudioPromptEncoder

    encoder = AudioPromptEncoder.from_pretrained("runs/align/mini")
    pipeline(**encoder.prompt("dog.wav")).images

Names are imported when they are first used: importing the package costs nothing. transformers'
AutoConfig and AutoModel know the encoder from then on.
"""

from __future__ import annotations

import importlib
from typing import Any

from align.registration import register

_WHERE = {
    "AlignTrainer": "align.trainer",
    "AudioError": "align.audio",
    "AudioPromptConfig": "align.configuration",
    "AudioPromptEncoder": "align.encoder",
    "PromptSpace": "align.prompts",
    "check_prompt": "align.fitting",
}
__all__ = [
    "AlignTrainer",
    "AudioError",
    "AudioPromptConfig",
    "AudioPromptEncoder",
    "PromptSpace",
    "check_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'align' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


register()
