"""Teaches a UNet to hear: `python -m diffuse.train [RECIPE] [--option value ...]`."""

from __future__ import annotations

from dataclasses import dataclass

from align.config.arguments import RecallArguments
from diffuse.config.arguments import (
    DataArguments,
    DiffuseTrainingArguments,
    EvaluationArguments,
    LossArguments,
    ModelArguments,
)

KINDS = (
    ModelArguments,
    DataArguments,
    LossArguments,
    RecallArguments,
    EvaluationArguments,
    DiffuseTrainingArguments,
)


@dataclass
class Options:
    """All options of a run, by theme."""

    model: ModelArguments
    data: DataArguments
    loss: LossArguments
    recall: RecallArguments
    evaluation: EvaluationArguments
    training: DiffuseTrainingArguments
