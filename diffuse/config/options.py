"""All options of a training of the UNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.config.arguments import MemoryArguments
from align.config.options import run_folder
from align.config.parser import parse
from diffuse.config.arguments import (
    DataArguments,
    DiffuseTrainingOptions,
    EvaluationArguments,
    LossArguments,
    ModelArguments,
)

if TYPE_CHECKING:
    from diffuse.config.training_args import DiffuseTrainingArguments

ARGUMENTS = (
    ModelArguments,
    DataArguments,
    LossArguments,
    MemoryArguments,
    EvaluationArguments,
    DiffuseTrainingOptions,
)


@dataclass
class Options:
    """All options of a run, by theme."""

    model: ModelArguments
    data: DataArguments
    loss: LossArguments
    retrieval_memory: MemoryArguments
    evaluation: EvaluationArguments
    training: DiffuseTrainingArguments


def parse_options(
    command: str, arguments: Sequence[str] | None = None, *, examples: Sequence[str] = ()
) -> Options:
    """The options of a training of the UNet from a command line.

    Args:
        command: what the user called.
        arguments: the command line; that of the process by default.
        examples: command lines for `--help`.

    Raises:
        SystemExit: an option does not exist, has a wrong value, or `--help` was asked for.
    """
    parts = parse(
        ARGUMENTS, "diffuse", command, arguments, examples=examples,
        replace={DiffuseTrainingOptions: "diffuse.config.training_args:DiffuseTrainingArguments"},
    )  # fmt: skip
    options = Options(*parts)
    options.training.output_dir = options.training.output_dir or run_folder("diffuse", options.data)
    return options
