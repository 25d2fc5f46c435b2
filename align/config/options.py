"""All options of `align.train`, and those of them that differ from the defaults."""

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
    """All options of a training run, by dataclass."""

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
    """Parse the options of a training run from a command line.

    Args:
        command: Name of the command, for the usage line.
        arguments: Command line. Defaults to that of the process.
        more: Further dataclasses of options.
        check: Function that is called with the dataclasses; its `ValueError` is reported as an
            error of the command line.
        examples: Command lines for `--help`.

    Returns:
        An `Options`; with `more`, a tuple of it and instances of the further dataclasses.

    Raises:
        SystemExit: If an option does not exist or has an invalid value, and after `--help`.
    """
    parts = parse(
        (*ARGUMENTS, *more), "align", command, arguments, check=check, examples=examples,
        replace={AlignTrainingOptions: "align.config.training_args:AlignTrainingArguments"},
    )  # fmt: skip
    options = Options(*parts[: len(ARGUMENTS)])
    options.training.output_dir = options.training.output_dir or run_folder("align", options.data)
    return (options, *parts[len(ARGUMENTS) :]) if more else options


def run_folder(package: str, data: CommonDataArguments) -> str:
    """Return the default output directory of a run: runs/PACKAGE/NAME, after the dataset."""
    name, _, _ = data.dataset.partition("@")
    path = Path(name.rstrip("/"))
    stem = path.stem if path.suffix in (".csv", ".jsonl", ".parquet") else path.name
    return f"runs/{package}/{stem or 'own'}"


STATED = ("base_model", "backbone", "dataset", "seed")  # always in the recipe of a run


def differing(options: Any, stated: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options of a run that differ from the defaults, as in a recipe.

    Args:
        options: An `Options`.
        stated: Names of options that are always included.

    Returns:
        Values by option name.
    """
    found: dict[str, Any] = {}
    for part in vars(options).values():
        default, hints = _default(type(part)), get_type_hints(type(part))
        for option in fields(part):
            value = getattr(part, option.name)
            changed = value != getattr(default, option.name)
            if option.name == "output_dir":
                changed = value != run_folder("align", options.data)
            if option.init and (changed or option.name in stated):
                value = getattr(value, "value", value)
                # Optional booleans are parsed from strings.
                word = isinstance(value, bool) and hints[option.name] is not bool
                found[option.name] = str(value).lower() if word else value
    return found


def _default(kind: Any) -> Any:
    """Return an instance with defaults, without side effects on a distributed run."""
    from accelerate.state import AcceleratorState, PartialState

    # TrainingArguments reset these shared states, and with them the world size.
    states = (PartialState._shared_state, AcceleratorState._shared_state)
    before = [dict(state) for state in states]
    try:
        return kind()
    finally:
        for state, values in zip(states, before, strict=True):
            state.clear()
            state.update(values)
