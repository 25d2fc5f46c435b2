"""Where a command computes: its --device."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds --device to a command's options."""
    parser.add_argument(
        "--device",
        default="auto",
        help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps, …",
    )


def chosen_device(name: str) -> torch.device:
    """The device of a --device.

    Raises:
        ValueError: there is no such device on this machine.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch says each of them: no such name, a build without it, and "meta" that holds nothing.
        reason = next(iter(str(error).splitlines()), "")[:120]
        raise ValueError(
            f"there is no device {name!r} on this machine: leave --device out ({reason})"
        ) from error
    return device
