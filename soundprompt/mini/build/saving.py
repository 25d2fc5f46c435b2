"""Models that are saved in half precision and load in single precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def save_half(model: Any, folder: Path) -> None:
    """Save the weights of a model in float16.

    Args:
        model: Model to save, converted in place.
        folder: Output directory.
    """
    model.half().save_pretrained(folder)
    set_float32_dtype(folder)


def set_float32_dtype(folder: Path) -> None:
    """Make transformers load float16 weights as float32 by default.

    transformers uses the dtype of the configuration, diffusers loads its models as float32; a
    pipeline with models of both would mix data types.

    Args:
        folder: Directory of the model.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "dtype" in config:
        path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
