"""The options of what a trained encoder's pictures are judged by, of runs and of commands."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from align.devices import add_device
from align.doorway import check_file
from align.names import JUDGES


@dataclass
class EvaluationArguments:
    """What is drawn and judged."""

    pictures: int = field(
        default=60, metadata={"help": "pictures drawn and judged at the end; 0 for none"}
    )
    judge: str = field(
        default="mini",
        metadata={"help": "who judges pictures: a name, or none"},
    )
    draw_steps: int = field(default=20, metadata={"help": "denoising steps a picture"})
    guidance: float = field(default=5.0, metadata={"help": "classifier-free guidance"})
    samples: int = field(
        default=10, metadata={"help": "unseen sounds drawn into samples.png; 0 for none"}
    )

    def __post_init__(self) -> None:
        for name, least in (("pictures", 0), ("samples", 0), ("draw_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is at least {least}, not {getattr(self, name)}")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ValueError(f"--guidance is a number from 0 on, not {self.guidance}")
        if self.judge != "none" and self.judge not in JUDGES:
            raise ValueError(
                f"there is no judge {self.judge!r}; there are: {', '.join(JUDGES)}, none"
            )


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
