"""Trains an alignment: `python -m align.train [RECIPE] [--option value ...]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from align.config.arguments import (
    AugmentArguments,
    DataArguments,
    EvaluationArguments,
    LossArguments,
    ModelArguments,
    RecallArguments,
)
from align.config.training_args import AlignTrainingArguments

KINDS = (
    ModelArguments,
    DataArguments,
    LossArguments,
    RecallArguments,
    AugmentArguments,
    EvaluationArguments,
    AlignTrainingArguments,
)


@dataclass
class Options:
    """All options of a run, by theme."""

    model: ModelArguments
    data: DataArguments
    loss: LossArguments
    recall: RecallArguments
    augment: AugmentArguments
    evaluation: EvaluationArguments
    training: AlignTrainingArguments


STATED = ("base", "backbone", "data", "seed")  # by every recipe that a run records


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
            if option.init and (changed or option.name in stated):
                value = getattr(value, "value", value)
                # A truth value of an option that may also be none is read as a word.
                word = isinstance(value, bool) and hints[option.name] is not bool
                found[option.name] = str(value).lower() if word else value
    return found
