"""Train audio encoders that predict the prompt embeddings of Stable Diffusion pipelines.

    from align import AudioPromptEncoder

    encoder = AudioPromptEncoder.from_pretrained("runs/align/mini")
    pipeline(**encoder.encode_prompt("dog.wav")).images

Names are imported lazily, so that `import align` stays fast.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY_IMPORTS = {
    "AlignTrainer": "align.training.trainer",
    "AudioError": "align.audio.files",
    "AudioPromptConfig": "align.models.configuration",
    "AudioPromptEncoder": "align.models.encoder",
    "PromptSpace": "align.prompts.space",
    "check_prompt": "align.prompts.pipelines",
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
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'align' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY_IMPORTS[name]), name)
