"""Training stages: which parameters are trained, with which loss and for how long.

A stage of a recipe is a short name (a key of `STAGES`) or a mapping of `Stage`'s fields, in which
"stage" names the stage that it modifies:
{stage: audio_attention, max_steps: 500, learning_rate: 1.0e-4}.
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
    """A training stage.

    Attributes:
        name: Name of the stage in its folder and log lines.
        trainable: Parameter groups that are trained; all other parameters are frozen.
        loss: "denoising": the denoising loss with audio attention. "text_replacement": the
            denoising loss with the level tokens in place of the text and no audio attention.
            "alignment": InfoNCE and MSE between the level tokens and those of their phrases,
            without the UNet.
        max_steps: Number of optimizer steps; 0 uses --num_train_epochs.
        learning_rate: Peak learning rate; 0 uses --learning_rate.
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
                f"the parameter groups are {', '.join(PARAMETER_GROUPS)}"
            )
        if self.loss not in LOSSES:
            raise ValueError(
                f"stage {self.name!r} has no loss {self.loss!r}: the losses are {', '.join(LOSSES)}"
            )
        if self.max_steps < 0 or self.learning_rate < 0:
            raise ValueError(f"stage {self.name!r}: max_steps and learning_rate cannot be negative")
        self._check_loss_reaches()

    def _check_loss_reaches(self) -> None:
        """Raise ValueError if the loss has no gradient for a trainable group."""
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
    "attention_only": Stage(
        "attention_only", ("level_projections", "attention", "gates", "level_weights")
    ),
    "gates": Stage("gates", ("gates", "level_weights")),
    "level_weights": Stage("level_weights", ("level_weights",)),
}


def parse_stage(text: str) -> Stage:
    """Parse a stage from a short name or a JSON mapping.

    Args:
        text: Key of `STAGES`, or a mapping of a recipe as JSON.

    Returns:
        The stage.

    Raises:
        ValueError: If the text is neither, or describes an invalid stage.
    """
    if not text.lstrip().startswith("{"):
        if text not in STAGES:
            raise ValueError(f"there is no stage {text!r}; there are: {', '.join(STAGES)}")
        return STAGES[text]
    try:
        given: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the stage {text} is not JSON ({error})") from error
    preset = given.pop("stage", None)
    known = {field.name for field in fields(Stage)}
    wrong = [key for key in given if key not in known]
    if wrong:
        keys = ", ".join(["stage", *sorted(known)])
        raise ValueError(f"a stage has no {', '.join(map(repr, wrong))}; its keys are: {keys}")
    try:
        if preset is not None:
            return replace(parse_stage(preset), **given)
        return Stage(**{"name": "+".join(given.get("trainable", ()))} | given)
    except TypeError as error:
        raise ValueError(
            f"the stage {text} lacks a key or has a value of the wrong type: {error}"
        ) from error


def parse_stages(texts: Sequence[str]) -> list[Stage]:
    """Parse the stages of a recipe.

    Args:
        texts: Stages in training order, as `parse_stage` takes them.

    Returns:
        The stages.

    Raises:
        ValueError: If there is no stage, or one is invalid.
    """
    if not texts:
        raise ValueError("give at least one stage to train")
    return [parse_stage(text) for text in texts]


def check_gates(stages: Sequence[Stage], from_trained: bool) -> None:
    """Check that every stage can train: closed gates block all gradients of the audio attention.

    Args:
        stages: Stages in training order.
        from_trained: Whether the run is initialized from a trained adapter, whose gates are open.

    Raises:
        ValueError: If all gradients of a stage would be zero.
    """
    opened = from_trained
    for stage in stages:
        if stage.loss == "denoising":
            opened = opened or "gates" in stage.trainable
            if not opened and "lora" not in stage.trainable:
                raise ValueError(
                    f"stage {stage.name!r} trains {', '.join(stage.trainable)} with closed gates, "
                    "which block gradients: train the gates too, or pass --init_from"
                )
