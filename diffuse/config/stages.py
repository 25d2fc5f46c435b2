"""Stages: what trains, by which loss, for how long. A recipe names them in a row.

A stage in a recipe is a short name (a key of `STAGES`) or a mapping of `Stage`'s fields, with
"stage" naming the one it starts from: {stage: hearing, steps: 500, learning_rate: 1.0e-4}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

PARTS = ("projector", "placing", "attention", "gates", "level_weights", "lora")
LOSSES = ("denoising", "substitution", "alignment")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: what its folder and its log lines are called by.
        trains: the parts that move; all else stays as it is.
        loss: "denoising" through the audio attention; "substitution", the same loss with the
            level tokens in the text's place and nothing heard beside it; "alignment", the level
            tokens against those of their captions, without the UNet.
        steps: updates; 0 takes --num_train_epochs.
        learning_rate: the peak; 0 takes --learning_rate.
    """

    name: str
    trains: tuple[str, ...]
    loss: str = "denoising"
    steps: int = 0
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "trains", tuple(self.trains))
        wrong = [part for part in self.trains if part not in PARTS]
        if wrong or not self.trains:
            raise ValueError(
                f"stage {self.name!r} trains {', '.join(map(repr, wrong)) or 'nothing'}: "
                f"the parts are {', '.join(PARTS)}"
            )
        if self.loss not in LOSSES:
            raise ValueError(
                f"stage {self.name!r} has no loss {self.loss!r}: there are {', '.join(LOSSES)}"
            )
        if self.steps < 0 or self.learning_rate < 0:
            raise ValueError(f"stage {self.name!r}: steps and learning_rate cannot be negative")
        self._check_reach()

    def _check_reach(self) -> None:
        """Whether the loss reaches what trains."""
        reached = {
            "alignment": {"projector"},
            "substitution": {"projector", "lora"},
            "denoising": set(PARTS),
        }[self.loss]
        beyond = [part for part in self.trains if part not in reached]
        if beyond:
            raise ValueError(
                f"stage {self.name!r}: the {self.loss} loss does not reach "
                f"{', '.join(beyond)}, only {', '.join(sorted(reached))}"
            )


STAGES = {
    "projector": Stage("projector", ("projector",), "alignment"),
    "substitution": Stage("substitution", ("projector",), "substitution"),
    "substitution_lora": Stage("substitution_lora", ("projector", "lora"), "substitution"),
    "hearing": Stage("hearing", ("projector", "placing", "attention", "gates", "level_weights")),
    "hearing_lora": Stage("hearing_lora", PARTS),
    "attention": Stage("attention", ("placing", "attention", "gates", "level_weights")),
    "gates": Stage("gates", ("gates", "level_weights")),
    "level_weights": Stage("level_weights", ("level_weights",)),
}


def read_stage(text: str) -> Stage:
    """A stage from a short name or from JSON, as a recipe's mapping arrives.

    Raises:
        ValueError: it is neither, or says what a stage cannot be.
    """
    if not text.lstrip().startswith("{"):
        if text not in STAGES:
            raise ValueError(f"there is no stage {text!r}; there are: {', '.join(STAGES)}")
        return STAGES[text]
    try:
        given: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the stage {text} is not JSON ({error})") from error
    start = given.pop("stage", None)
    known = {field.name for field in fields(Stage)}
    wrong = [key for key in given if key not in known]
    if wrong:
        there = ", ".join(["stage", *sorted(known)])
        raise ValueError(f"a stage has no {', '.join(map(repr, wrong))}; it has: {there}")
    try:
        if start is not None:
            return replace(read_stage(start), **given)
        return Stage(**{"name": "+".join(given.get("trains", ()))} | given)
    except TypeError as error:
        raise ValueError(f"the stage {text} says too little or the wrong kind: {error}") from error


def read_stages(texts: Sequence[str]) -> list[Stage]:
    """The stages of a recipe, each folder name made unique by its number.

    Raises:
        ValueError: there is none, or one cannot be.
    """
    if not texts:
        raise ValueError("give at least one stage to train")
    return [read_stage(text) for text in texts]


def check_gates(stages: Sequence[Stage], started: bool) -> None:
    """Refuses a row of stages in which something trains behind gates that never opened.

    Args:
        stages: in their order.
        started: whether they start from an adapter that was trained before.

    Raises:
        ValueError: a stage learns nothing.
    """
    opened = started
    for stage in stages:
        if stage.loss == "denoising":
            opened = opened or "gates" in stage.trains
            if not opened and "lora" not in stage.trains:
                raise ValueError(
                    f"stage {stage.name!r} trains {', '.join(stage.trains)} behind closed gates, "
                    "where nothing is learned: train gates too, or start from --adapter"
                )
