"""Save safetensors files with the permissions of any other new file.

safetensors creates its files with mode 0600, so that other users of a machine, or a web server,
cannot read them. The functions here apply the process's umask instead.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file as _save_file


def save_file(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Saves tensors to a safetensors file."""
    _save_file(tensors, path, metadata=metadata)
    _apply_umask(path)


def apply_umask(folder: Path) -> None:
    """Sets the permissions of a folder's safetensors files to those of new files."""
    for path in folder.glob("*.safetensors"):
        _apply_umask(path)


def _apply_umask(path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
