"""Training arguments of an audio adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from align.config.training_args import (
    LENGTH_OPTIONS,
    WEIGHT_DETERMINING_OPTIONS,
    SoundTrainingArguments,
)
from diffuse.config.arguments import DiffuseTrainingOptions


@dataclass
class DiffuseTrainingArguments(DiffuseTrainingOptions, SoundTrainingArguments):
    """All training arguments of an audio adapter."""

    # Includes the length: the learning rate schedule of a stage spans all of its steps.
    WEIGHT_DETERMINING_OPTIONS: ClassVar[tuple[str, ...]] = (
        *WEIGHT_DETERMINING_OPTIONS,
        *LENGTH_OPTIONS[:2],
        "gate_lr_multiplier",
        "ema_decay",
    )

    def __post_init__(self) -> None:
        import torch

        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # otherwise the Trainer refuses bfloat16, which CPUs support
        super().__post_init__()
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"--ema_decay must be between 0 and 1, not {self.ema_decay}")
