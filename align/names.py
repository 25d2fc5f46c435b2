"""Short names for bases, backbones, data sets, judges and CLIPs.

Whatever is not a name here is a folder or a hub id. An entry is "module:attribute" and is
imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

BASES = {"mini": "mini.models:STABLE_DIFFUSION"}
BACKBONES = {
    "mini-clap": "mini.models:CLAP",
    "mini-w2v-bert": "mini.models:W2V_BERT",
    "log-mel": "align.backbones.log_mel:fresh",
}
UNTRAINED = ("log-mel",)  # backbones that start from nothing
DATASETS = {
    "mini": "mini.dataset:singles",
    "mini-mixtures": "mini.dataset:mixtures",
    "mini-pairs": "mini.dataset:pairs",
    "mini-retrieval": "mini.scenes:scenes",
    "fsd50k": "align.data.named:FSD50K",
    "audiocaps": "align.data.named:AUDIOCAPS",
    "esc50": "align.data.named:ESC50",
}
JUDGES = {"mini": "mini.judge:judge"}
CLIPS = {"mini": "mini.models:CLIP"}


def lookup(table: dict[str, str], name: str) -> Any:
    """What a short name stands for, or the name itself where it is none."""
    if name not in table:
        return name
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(module), attribute)
