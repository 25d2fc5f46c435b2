"""Shared parts of the argparse commands: parsers, common options, and checks of paths."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from importlib.util import find_spec
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
        kwargs.setdefault("formatter_class", DefaultsHelpFormatter)
        super().__init__(prog=prog, allow_abbrev=False, **kwargs)

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


def argument_group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """Return the group of options with this title, and add it to the parser if it is new."""
    for group in parser._action_groups:
        if group.title == title:
            return group
    return parser.add_argument_group(title)


def check_audio(clips: Iterable[Any]) -> None:
    """Open audio inputs and close them again, without decoding them.

    Args:
        clips: Audio inputs as `align.audio.read` takes them.

    Raises:
        AudioError: If an input does not exist, is empty, or is not audio.
    """
    from align.audio.decode import open_source

    for audio in clips:
        with contextlib.ExitStack() as stack:
            open_source(audio, None, stack)


def check_output_file(path: Path, option: str = "--output_file") -> None:
    """Check that a file can be written.

    Args:
        path: Output file. Missing parent folders are created later.
        option: Name of the option, for error messages.

    Raises:
        ValueError: If `path` is a folder, or its parent folder cannot be written.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: give the name of a file")
    check_output_dir(path.parent, option)


def check_output_dir(folder: Path, option: str = "--output_dir") -> None:
    """Check that files can be written to a folder.

    Args:
        folder: Output folder. It may not exist yet.
        option: Name of the option, for error messages.

    Raises:
        ValueError: If `folder` or a parent of it is a file or is not writable.
    """
    whole = folder.absolute()
    existing = next(place for place in (whole, *whole.parents) if place.exists())
    if existing == whole and not existing.is_dir():
        raise ValueError(f"{option} {folder} is a file: give a folder")
    if not existing.is_dir():
        raise ValueError(f"{option} {folder} is inside {existing}, which is a file: give a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option} {folder} is inside {existing}, which is not writable")


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add `--device` to a parser or a group of options."""
    parser.add_argument("--device", default="auto", help="Device: auto, cpu, cuda, cuda:1, mps, …")


def resolve_device(name: str) -> torch.device:
    """Return the device for the value of `--device`.

    Args:
        name: Name of the device. "auto" is the accelerator of this machine, or the CPU.

    Raises:
        ValueError: If there is no such device on this machine.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # An unknown name, a build of torch without the backend, and the "meta" device.
        reason = first_line(error)
        raise ValueError(
            f"there is no device {name!r} on this machine: leave --device out ({reason})"
        ) from error
    return device


def add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `align.evaluate` and `diffuse.evaluate` share."""
    defaults = EvaluationArguments()
    argument_group(parser, "data").add_argument(
        "--num_workers", type=int, default=2, help="Number of feature-extraction processes."
    )
    evaluation = argument_group(parser, "evaluation")
    evaluation.add_argument(
        "--num_inference_steps", type=int, default=defaults.num_inference_steps,
        help="Number of denoising steps per image.",
    )  # fmt: skip
    evaluation.add_argument(
        "--guidance_scale", type=float, default=defaults.guidance_scale,
        help="Classifier-free guidance scale.",
    )  # fmt: skip
    evaluation.add_argument(
        "--num_sheet_samples", type=int, default=defaults.num_sheet_samples,
        help="Number of clips in --sample_sheet.",
    )  # fmt: skip
    add_device(evaluation)
    output = argument_group(parser, "output")
    output.add_argument(
        "--sample_sheet", type=Path,
        help="Write a sample sheet (spectrograms and generated images) to this PNG file.",
    )  # fmt: skip
    output.add_argument("--json", type=Path, help="Write the metrics to this JSON file.")


def check_evaluation_options(options: argparse.Namespace, *counts: str) -> None:
    """Check the options of an evaluation command before anything is computed.

    Args:
        options: Parsed options: those of `add_evaluation_options`, `--num_images` and
            `--image_classifier`.
        counts: Further options that are numbers of images.

    Raises:
        ValueError: If a number is out of its range, or a file cannot be written.
    """
    for name in ("num_images", *counts):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name} cannot be negative, and is {getattr(options, name)}")
    EvaluationArguments(**{f.name: getattr(options, f.name) for f in fields(EvaluationArguments)})
    if options.num_workers < 1:
        raise ValueError(f"--num_workers is at least 1, not {options.num_workers}")
    if options.sample_sheet is not None and options.num_sheet_samples < 1:
        raise ValueError(
            f"--sample_sheet needs --num_sheet_samples of at least 1, not "
            f"{options.num_sheet_samples}"
        )
    if options.sample_sheet is not None and options.sample_sheet.suffix.lower() != ".png":
        raise ValueError(f"--sample_sheet must be a .png file, not {options.sample_sheet.name}")
    for option, path in (("--json", options.json), ("--sample_sheet", options.sample_sheet)):
        if path is not None:
            check_output_file(path, option)


def quiet_libraries() -> None:
    """Silence what libraries print and a user cannot act on.

    These are the progress bars of loading a model, the notice that torchvision is absent, and that
    memory is not pinned without an accelerator.
    """
    import logging
    import warnings

    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers.utils.import_utils").addFilter(
        lambda record: "requires torchvision" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", message=".*pin_memory.*")


def check_extra(command: str, extra: str, *modules: str) -> None:
    """Stop a command whose optional dependencies are not installed.

    Args:
        command: Name of the command in the message.
        extra: Extra of the package that installs them.
        modules: Modules that the command imports.

    Raises:
        SystemExit: A module is missing; the message names the extra to install.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f'{command}: {" and ".join(missing)} not installed: pip install "soundprompt[{extra}]"'
        )
