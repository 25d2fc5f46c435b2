"""All training options of an audio adapter."""

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
    """All training options of an audio adapter."""

    # The length as well: every stage has a schedule of its own over its whole length.
    WEIGHT_DETERMINING_OPTIONS: ClassVar[tuple[str, ...]] = (
        *WEIGHT_DETERMINING_OPTIONS,
        *LENGTH_OPTIONS[:2],
        "gate_rate_factor",
        "ema_decay",
    )

    def __post_init__(self) -> None:
        import torch

        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # else the Trainer refuses bfloat16, which a CPU can do
        super().__post_init__()
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"--ema_decay lies between 0 and 1, not {self.ema_decay}")
