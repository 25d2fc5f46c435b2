"""What a command is given, looked at before models are loaded: sounds, and places to write."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.arguments import EvaluationArguments
from align.registry import first_line

if TYPE_CHECKING:
    import torch


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """A command's --help, which tells the defaults that there are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False:
            return action.help
        if isinstance(default, (list, tuple)):  # as it would be typed
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


def check_recordings(recordings: Iterable[Any]) -> None:
    """Opens recordings and closes them again; nothing of them is decoded yet.

    Args:
        recordings: anything that `align.audio.read` takes.

    Raises:
        AudioError: one is not there, is empty, or is no sound.
    """
    from align.audio.decode import open_source

    for recording in recordings:
        with contextlib.ExitStack() as stack:
            open_source(recording, None, stack)


def check_file(path: Path, option: str = "--out") -> None:
    """Refuses a place in which no file can be written.

    Args:
        path: of the file; folders on the way that are missing are made later.
        option: what said so.

    Raises:
        ValueError: a folder has its name, or its folder cannot be.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: give the name of a file")
    check_folder(path.parent, option)


def check_folder(folder: Path, option: str = "--out") -> None:
    """Refuses a folder in which nothing can be written.

    Args:
        folder: it need not be there yet.
        option: what said so.

    Raises:
        ValueError: there is a file in its place, or it may not be written in.
    """
    whole = folder.absolute()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if there == whole and not there.is_dir():
        raise ValueError(f"{option} {folder} is a file: give a folder")
    if not there.is_dir():
        raise ValueError(f"{option} would lie in {there}, which is a file: give a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{option} would lie in {there}, which may not be written in")


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
        reason = first_line(error)
        raise ValueError(
            f"there is no device {name!r} on this machine: leave --device out ({reason})"
        ) from error
    return device


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Adds to an evaluation's command how it draws, by what it computes, and what it writes."""
    drawn = EvaluationArguments()  # its defaults
    parser.add_argument(
        "--draw_steps", type=int, default=drawn.draw_steps, help="denoising steps a picture"
    )
    parser.add_argument(
        "--guidance", type=float, default=drawn.guidance, help="classifier-free guidance"
    )
    parser.add_argument(
        "--samples", type=int, default=drawn.samples, help="sounds drawn with --sheet"
    )
    parser.add_argument("--sheet", type=Path, help="draw sample sounds and pictures to this PNG")
    parser.add_argument("--workers", type=int, default=2, help="processes that prepare sounds")
    add_device(parser)
    parser.add_argument("--json", type=Path, help="write the figures to this file")


def check_evaluation(options: argparse.Namespace, *counts: str) -> None:
    """Refuses what an evaluation's command is given wrong, before hours are spent on it.

    Args:
        options: of the command: those of `add_evaluation`, --pictures and --judge.
        counts: its options beside --pictures that say how many are drawn.

    Raises:
        ValueError: a number is out of its range, or a file could not be written.
    """
    for name in ("pictures", *counts):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name} cannot be negative, and is {getattr(options, name)}")
    EvaluationArguments(**{f.name: getattr(options, f.name) for f in fields(EvaluationArguments)})
    if options.workers < 1:
        raise ValueError(f"--workers is at least 1, not {options.workers}")
    if options.sheet is not None and options.samples < 1:
        raise ValueError("--sheet draws --samples sounds, at least 1")
    if options.sheet is not None and options.sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet writes a PNG: name it so, not {options.sheet.name}")
    for option, path in (("--json", options.json), ("--sheet", options.sheet)):
        if path is not None:
            check_file(path, option)
