"""What a command is given, looked at before models are loaded: sounds, and places to write."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.arguments import EvaluationArguments
from align.config.parser import did_you_mean
from align.registry import first_line

if TYPE_CHECKING:
    import torch


class DefaultsHelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Append defaults to the help texts, if there are any, and keep the lines of examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if default is None or default is False:
            return action.help
        if isinstance(default, (list, tuple)):  # as on the command line
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return "".join(indent + line for line in text.splitlines(keepends=True))
        fill = super()._fill_text
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(fill(p, width, indent) for p in paragraphs)


class CommandParser(argparse.ArgumentParser):
    """Argument parser of a command: exact option names, defaults in `--help`, and suggestions.

    Args:
        prog: Name of the command, such as `python -m align.encode`.
        examples: Command lines that end the `--help`.
        kwargs: Further arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, prog: str, examples: Sequence[str] = (), **kwargs: Any) -> None:
        if examples:
            kwargs["epilog"] = "\n".join(("examples:", *(f"  {line}" for line in examples)))
        kwargs = {"formatter_class": DefaultsHelpFormatter, "allow_abbrev": False} | kwargs
        super().__init__(prog=prog, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as `argparse` does, but report unknown options before missing ones."""
        words = list(sys.argv[1:] if args is None else args)
        for word in words[: words.index("--")] if "--" in words else words:
            self._check_option(word)
        return super().parse_known_args(words, namespace)

    def _check_option(self, word: str) -> None:
        flag, _, _ = word.partition("=")
        # argparse takes a word with a space for a value.
        if not flag.startswith("--") or " " in word or flag in self._option_string_actions:
            return
        known = list(self._option_string_actions)
        longer = [option for option in known if option.startswith(flag) and flag != "--"]
        hint = f"; did you mean {longer[0]}?" if longer else did_you_mean(flag, known)
        self.error(f"there is no option {word!r}{hint}")


def check_audio(clips: Iterable[Any]) -> None:
    """Opens recordings and closes them again; nothing of them is decoded yet.

    Args:
        recordings: anything that `align.audio.read` takes.

    Raises:
        AudioError: one is not there, is empty, or is no sound.
    """
    from align.audio.decode import open_source

    for audio in clips:
        with contextlib.ExitStack() as stack:
            open_source(audio, None, stack)


def check_output_file(path: Path, option: str = "--out") -> None:
    """Refuses a place in which no file can be written.

    Args:
        path: of the file; folders on the way that are missing are made later.
        option: what said so.

    Raises:
        ValueError: a folder has its name, or its folder cannot be.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: give the name of a file")
    check_output_dir(path.parent, option)


def check_output_dir(folder: Path, option: str = "--out") -> None:
    """Refuses a folder in which nothing can be written.

    Args:
        folder: it need not be there yet.
        option: what said so.

    Raises:
        ValueError: there is a file in its place, or it may not be written in.
    """
    whole = folder.absolute()
    existing = next(place for place in (whole, *whole.parents) if place.exists())
    if existing == whole and not existing.is_dir():
        raise ValueError(f"{option} {folder} is a file: give a folder")
    if not existing.is_dir():
        raise ValueError(f"{option} would lie in {existing}, which is a file: give a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option} would lie in {existing}, which may not be written in")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds --device to a command's options."""
    parser.add_argument(
        "--device",
        default="auto",
        help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps, …",
    )


def resolve_device(name: str) -> torch.device:
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


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Adds to an evaluation's command how it draws, by what it computes, and what it writes."""
    defaults = EvaluationArguments()  # its defaults
    parser.add_argument(
        "--num_inference_steps",
        type=int,
        default=defaults.num_inference_steps,
        help="denoising steps a picture",
    )
    parser.add_argument(
        "--guidance_scale",
        type=float,
        default=defaults.guidance_scale,
        help="classifier-free guidance",
    )
    parser.add_argument(
        "--num_sheet_samples",
        type=int,
        default=defaults.num_sheet_samples,
        help="sounds drawn with --sample_sheet",
    )
    parser.add_argument(
        "--sample_sheet", type=Path, help="draw sample sounds and pictures to this PNG"
    )
    parser.add_argument("--num_workers", type=int, default=2, help="processes that prepare sounds")
    add_device(parser)
    parser.add_argument("--json", type=Path, help="write the figures to this file")


def check_evaluation_options(options: argparse.Namespace, *counts: str) -> None:
    """Refuses what an evaluation's command is given wrong, before hours are spent on it.

    Args:
        options: of the command: those of `add_evaluation_options`, --num_images and --image_classifier.
        counts: its options beside --num_images that say how many are drawn.

    Raises:
        ValueError: a number is out of its range, or a file could not be written.
    """
    for name in ("num_images", *counts):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name} cannot be negative, and is {getattr(options, name)}")
    EvaluationArguments(**{f.name: getattr(options, f.name) for f in fields(EvaluationArguments)})
    if options.num_workers < 1:
        raise ValueError(f"--num_workers is at least 1, not {options.num_workers}")
    if options.sample_sheet is not None and options.num_sheet_samples < 1:
        raise ValueError("--sample_sheet draws --num_sheet_samples sounds, at least 1")
    if options.sample_sheet is not None and options.sample_sheet.suffix.lower() != ".png":
        raise ValueError(
            f"--sample_sheet writes a PNG: name it so, not {options.sample_sheet.name}"
        )
    for option, path in (("--json", options.json), ("--sample_sheet", options.sample_sheet)):
        if path is not None:
            check_output_file(path, option)
