"""What is computed once and kept on disk, found again by what it was computed from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

FORMAT = 1  # raised when what is kept changes its meaning


def keep(
    folder: Path | None,
    kind: str,
    source: dict[str, Any],
    make: Callable[[], tuple[dict[str, torch.Tensor], dict[str, Any]]],
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and notes from the folder, or made and put there.

    Args:
        folder: where they are kept; None keeps nothing.
        kind: what they are, the beginning of the file's name.
        source: all that they follow from, as JSON.
        make: computes tensors by name, and notes as JSON.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    told = json.dumps({"format": FORMAT, **source}, sort_keys=True)
    if folder is None:
        return make()
    path = folder / f"{kind}-{hashlib.sha256(told.encode()).hexdigest()[:24]}.safetensors"
    if not path.exists():
        tensors, notes = make()
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial,
                  metadata={"notes": json.dumps(notes)})  # fmt: skip
        partial.replace(path)  # a kill during the write leaves nothing half
        return tensors, notes
    with safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()["notes"])
    return load_file(path), notes


def weights_of(*modules: torch.nn.Module) -> str:
    """A short text that tells modules' weights apart: of each tensor its sum and its ends."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in module.state_dict().items():
            flat = value.detach().double().flatten()
            parts = [flat.sum().item(), *flat[:4].tolist(), *flat[-4:].tolist()]
            digest.update(f"{name} {tuple(value.shape)} {parts}".encode())
    return digest.hexdigest()


def rows_of(rows: Dataset) -> str:
    """A short text that tells the rows of a data set apart: their values, and files' sizes."""
    stored = rows.with_format(None)
    digest = hashlib.sha256()
    for column in sorted(stored.column_names):
        digest.update(column.encode())
        digest.update(repr(list(_told(stored[column]))).encode())
    return digest.hexdigest()


def _told(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        held = value.get("bytes") if isinstance(value, dict) else None
        if isinstance(held, bytes):
            yield hashlib.sha256(held).hexdigest()
        elif isinstance(value, str) and len(value) < 4096 and Path(value).is_file():
            state = Path(value).stat()
            yield value, state.st_size, state.st_mtime_ns
        else:
            yield value
