"""What a loss learns itself, kept through a run as the Trainer keeps its model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from align.hub.run_record import TrainingRecord, tell
from align.losses.alignment import AlignmentLoss
from align.training.distributed import barrier

MIN_TEMPERATURE = 0.01  # no temperature falls below it, as in CLIP


class LearnedLossCallback(TrainerCallback):
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
                parameter.clamp_(min=math.log(MIN_TEMPERATURE))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """It is saved in the checkpoint."""
        if state.is_world_process_zero:
            self._criterion.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class SampleSheetCallback(TrainerCallback):
    """Draws the fixed sample sounds at every evaluation.

    Args:
        folder: where the sheets go.
        generate: writes a sheet to a path.
    """

    def __init__(self, folder: Path, generate: Callable[[Path], None]) -> None:
        self._folder, self._generate = folder, generate

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes step-N.png."""
        self._generate(self._folder / f"step-{state.global_step}.png")


class RunRecordCallback(TrainerCallback):
    """Writes into every checkpoint, once it is whole, what it was trained on and how."""

    def __init__(
        self, options: dict[str, Any], recipe: dict[str, Any], known: TrainingRecord
    ) -> None:
        self._told = options, recipe, known

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called when all else is written, by every process."""
        barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            tell(folder, *self._told)
