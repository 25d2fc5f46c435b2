"""What a command is given, looked at before models are loaded: sounds, and places to write."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


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
    from align.sources import open_source

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
