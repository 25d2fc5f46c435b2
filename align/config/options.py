"""All options of an alignment, and which of them differ from the defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from align.config.arguments import (
    AlignTrainingOptions,
    AugmentArguments,
    CommonDataArguments,
    DataArguments,
    EvaluationArguments,
    LossArguments,
    MemoryArguments,
    ModelArguments,
)
from align.config.parser import parse

if TYPE_CHECKING:
    from align.config.training_args import AlignTrainingArguments

ARGUMENTS = (
    ModelArguments,
    DataArguments,
    LossArguments,
    MemoryArguments,
    AugmentArguments,
    EvaluationArguments,
    AlignTrainingOptions,
)


@dataclass
class Options:
    """All options of a run, by theme."""

    model: ModelArguments
    data: DataArguments
    loss: LossArguments
    memory: MemoryArguments
    augment: AugmentArguments
    evaluation: EvaluationArguments
    training: AlignTrainingArguments


def parse_options(
    command: str,
    arguments: Sequence[str] | None = None,
    *more: Any,
    check: Callable[..., None] | None = None,
    examples: Sequence[str] = (),
) -> Any:
    """The options of an alignment from a command line.

    Args:
        command: what the user called.
        arguments: the command line; that of the process by default.
        more: further dataclasses of options.
        check: is called with the dataclasses; a ValueError of it is an error of the command line.
        examples: command lines for `--help`.

    Returns:
        An `Options`; with `more`, a tuple of it and the further dataclasses.

    Raises:
        SystemExit: an option does not exist, has a wrong value, or `--help` was asked for.
    """
    parts = parse(
        (*ARGUMENTS, *more), "align", command, arguments, check=check, examples=examples,
        replace={AlignTrainingOptions: "align.config.training_args:AlignTrainingArguments"},
    )  # fmt: skip
    options = Options(*parts[: len(ARGUMENTS)])
    options.training.output_dir = options.training.output_dir or run_folder("align", options.data)
    return (options, *parts[len(ARGUMENTS) :]) if more else options


def run_folder(package: str, data: CommonDataArguments) -> str:
    """The default folder of a run: runs/PACKAGE/NAME, named after the data set."""
    name, _, _ = data.dataset.partition("@")
    path = Path(name.rstrip("/"))
    stem = path.stem if path.suffix in (".csv", ".jsonl", ".parquet") else path.name
    return f"runs/{package}/{stem or 'own'}"


STATED = ("base_model", "backbone", "dataset", "seed")  # by every recipe that a run records


def differing(options: Any, stated: Sequence[str] = ()) -> dict[str, Any]:
    """The options of a run that differ from the defaults, as a recipe states them.

    Args:
        options: an `Options`.
        stated: names of options that are listed in any case.
    """
    found: dict[str, Any] = {}
    for part in vars(options).values():
        default, hints = type(part)(), get_type_hints(type(part))
        for option in fields(part):
            value = getattr(part, option.name)
            changed = value != getattr(default, option.name)
            if option.name == "output_dir":
                changed = value != run_folder("align", options.data)
            if option.init and (changed or option.name in stated):
                value = getattr(value, "value", value)
                # A truth value of an option that may also be none is read as a word.
                word = isinstance(value, bool) and hints[option.name] is not bool
                found[option.name] = str(value).lower() if word else value
    return found
