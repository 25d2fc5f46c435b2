"""What a loss learns itself, kept through a run as the Trainer keeps its model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from align.criterion import AlignmentLoss

COLDEST = 0.01  # no temperature falls below it, as in CLIP


class Learning(TrainerCallback):
    """Does for what the loss learns what the Trainer does for its model alone."""

    def __init__(self, criterion: AlignmentLoss) -> None:
        self._criterion = criterion

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """No gradient is left from the step before."""
        self._criterion.zero_grad()

    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """No temperature runs away."""
        for name, parameter in self._criterion.named_parameters():
            if name.startswith("log_"):
                parameter.clamp_(min=math.log(COLDEST))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """It is saved in the checkpoint."""
        if state.is_world_process_zero:
            self._criterion.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")
