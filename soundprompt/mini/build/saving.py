"""Models kept in half precision that load in single precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def save_half(model: Any, folder: Path) -> None:
    """Saves a model's weights as fp16."""
    model.half().save_pretrained(folder)
    set_float32_dtype(folder)


def set_float32_dtype(folder: Path) -> None:
    """Makes transformers load a folder's fp16 weights as float32 where no dtype is asked for.

    It takes the dtype of the configuration before that of the file, while diffusers loads its own
    models as float32: a pipeline of the two would not fit together.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "dtype" in config:
        path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
