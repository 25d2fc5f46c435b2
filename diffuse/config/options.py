"""All options of `diffuse.train`."""

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
    """All options of a run by section.

    Attributes:
        model: Options of the models.
        data: Options of the audio-image pairs.
        loss: Options of the stages and losses.
        retrieval_memory: Options of the retrieval memory.
        evaluation: Options of the evaluation after training.
        training: Training arguments.
    """

    model: ModelArguments
    data: DataArguments
    loss: LossArguments
    retrieval_memory: MemoryArguments
    evaluation: EvaluationArguments
    training: DiffuseTrainingArguments


def parse_options(
    command: str, arguments: Sequence[str] | None = None, *, examples: Sequence[str] = ()
) -> Options:
    """Parse the options of a UNet training from a command line.

    Args:
        command: Command shown in the usage text.
        arguments: Command line. Defaults to that of the process.
        examples: Example command lines shown by `--help`.

    Returns:
        The parsed options.

    Raises:
        SystemExit: If an option does not exist or has an invalid value, or `--help` is given.
    """
    parts = parse(
        ARGUMENTS, "diffuse", command, arguments, examples=examples,
        replace={DiffuseTrainingOptions: "diffuse.config.training_args:DiffuseTrainingArguments"},
    )  # fmt: skip
    options = Options(*parts)
    options.training.output_dir = options.training.output_dir or run_folder("diffuse", options.data)
    return options
