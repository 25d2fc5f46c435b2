"""Stages: what trains, by which loss, for how long. A recipe names them in a row.

A stage in a recipe is a short name (a key of `STAGES`) or a mapping of `Stage`'s fields, with
"stage" naming the one it starts from: {stage: hearing, steps: 500, learning_rate: 1.0e-4}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

PARAMETER_GROUPS = ("projector", "level_projections", "attention", "gates", "level_weights", "lora")
LOSSES = ("denoising", "text_replacement", "alignment")


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
    trainable: tuple[str, ...]
    loss: str = "denoising"
    max_steps: int = 0
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "trainable", tuple(self.trainable))
        wrong = [part for part in self.trainable if part not in PARAMETER_GROUPS]
        if wrong or not self.trainable:
            raise ValueError(
                f"stage {self.name!r} trains {', '.join(map(repr, wrong)) or 'nothing'}: "
                f"the parts are {', '.join(PARAMETER_GROUPS)}"
            )
        if self.loss not in LOSSES:
            raise ValueError(
                f"stage {self.name!r} has no loss {self.loss!r}: there are {', '.join(LOSSES)}"
            )
        if self.max_steps < 0 or self.learning_rate < 0:
            raise ValueError(f"stage {self.name!r}: steps and learning_rate cannot be negative")
        self._check_loss_reaches()

    def _check_loss_reaches(self) -> None:
        """Whether the loss reaches what trains."""
        reached = {
            "alignment": {"projector"},
            "text_replacement": {"projector", "lora"},
            "denoising": set(PARAMETER_GROUPS),
        }[self.loss]
        beyond = [part for part in self.trainable if part not in reached]
        if beyond:
            raise ValueError(
                f"stage {self.name!r}: the {self.loss} loss does not reach "
                f"{', '.join(beyond)}, only {', '.join(sorted(reached))}"
            )


STAGES = {
    "projector": Stage("projector", ("projector",), "alignment"),
    "text_replacement": Stage("text_replacement", ("projector",), "text_replacement"),
    "text_replacement_lora": Stage(
        "text_replacement_lora", ("projector", "lora"), "text_replacement"
    ),
    "audio_attention": Stage(
        "audio_attention", ("projector", "level_projections", "attention", "gates", "level_weights")
    ),
    "audio_attention_lora": Stage("audio_attention_lora", PARAMETER_GROUPS),
    "attention": Stage("attention", ("level_projections", "attention", "gates", "level_weights")),
    "gates": Stage("gates", ("gates", "level_weights")),
    "level_weights": Stage("level_weights", ("level_weights",)),
}


def parse_stage(text: str) -> Stage:
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
            return replace(parse_stage(start), **given)
        return Stage(**{"name": "+".join(given.get("trainable", ()))} | given)
    except TypeError as error:
        raise ValueError(f"the stage {text} says too little or the wrong kind: {error}") from error


def parse_stages(texts: Sequence[str]) -> list[Stage]:
    """The stages of a recipe, each folder name made unique by its number.

    Raises:
        ValueError: there is none, or one cannot be.
    """
    if not texts:
        raise ValueError("give at least one stage to train")
    return [parse_stage(text) for text in texts]


def check_gates(stages: Sequence[Stage], from_trained: bool) -> None:
    """Refuses a row of stages in which something trains behind gates that never opened.

    Args:
        stages: in their order.
        started: whether they start from an adapter that was trained before.

    Raises:
        ValueError: a stage learns nothing.
    """
    opened = from_trained
    for stage in stages:
        if stage.loss == "denoising":
            opened = opened or "gates" in stage.trainable
            if not opened and "lora" not in stage.trainable:
                raise ValueError(
                    f"stage {stage.name!r} trains {', '.join(stage.trainable)} behind closed gates, "
                    "where nothing is learned: train gates too, or start from --adapter"
                )
