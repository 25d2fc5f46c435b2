"""Short names of base models, backbones, datasets, image classifiers and CLIP models.

Any other name is a folder or a Hub id. An entry is "module:attribute" and is imported on use.
"""

from __future__ import annotations

import importlib
from typing import Any

BASE_MODELS = {"mini": "soundprompt.mini.models:STABLE_DIFFUSION"}
BACKBONES = {
    "mini-clap": "soundprompt.mini.models:CLAP",
    "mini-w2v-bert": "soundprompt.mini.models:W2V_BERT",
    "log-mel": "align.models.backbones.log_mel:untrained_log_mel",
}
UNTRAINED_BACKBONES = ("log-mel",)  # backbones without pretrained weights
DATASETS = {
    "mini": "soundprompt.mini.dataset:singles",
    "mini-mixtures": "soundprompt.mini.dataset:mixtures",
    "mini-retrieval": "soundprompt.mini.scenes:scenes",
    "fsd50k": "align.data.columns:FSD50K",
    "audiocaps": "align.data.columns:AUDIOCAPS",
    "esc50": "align.data.columns:ESC50",
}
PAIR_DATASETS = {"mini": "soundprompt.mini.dataset:pairs"}  # audio-image pairs
IMAGE_CLASSIFIERS = {"mini": "soundprompt.mini.image_classifier:load_image_classifier"}
CLIP_MODELS = {"mini": "soundprompt.mini.models:CLIP"}


def lookup(table: dict[str, str], name: str) -> Any:
    """Return the object behind a short name, or the name itself if it is not in the table."""
    if name not in table:
        return name
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error message, cut to 200 characters."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:200]
