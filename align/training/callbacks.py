"""Trainer callbacks: learned loss parameters, sample sheets and run records."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from align.hub.run_record import TrainingRecord, write_run_record
from align.losses.alignment import AlignmentLoss
from align.training.distributed import barrier

MIN_TEMPERATURE = 0.01  # lower bound of learned temperatures, as in CLIP


class LearnedLossCallback(TrainerCallback):
    """Zero, clamp and save the learned parameters of the loss.

    The Trainer does this for the parameters of its model only.

    Args:
        criterion: Loss with learned temperatures.
    """

    def __init__(self, criterion: AlignmentLoss) -> None:
        self._criterion = criterion

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Zero the gradients of the loss."""
        self._criterion.zero_grad()

    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clamp the temperatures to their lower bound."""
        for name, parameter in self._criterion.named_parameters():
            if name.startswith("log_"):
                parameter.clamp_(min=math.log(MIN_TEMPERATURE))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save the parameters of the loss in the checkpoint."""
        if state.is_world_process_zero:
            self._criterion.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class SampleSheetCallback(TrainerCallback):
    """Write a sample sheet at every evaluation.

    Args:
        folder: Output folder of the sheets.
        generate: Function that writes a sheet to a path.
    """

    def __init__(self, folder: Path, generate: Callable[[Path], None]) -> None:
        self._folder, self._generate = folder, generate

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the sheet step-N.png."""
        self._generate(self._folder / f"step-{state.global_step}.png")


class RunRecordCallback(TrainerCallback):
    """Write the run record to every checkpoint, as its last file.

    Args:
        options: Options of the run, by dataclass.
        recipe: Options that differ from the defaults.
        record: Labels, captions and licenses of the training rows.
    """

    def __init__(
        self, options: dict[str, Any], recipe: dict[str, Any], record: TrainingRecord
    ) -> None:
        self._record = options, recipe, record

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the record after the other files, once all processes are here."""
        barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_run_record(folder, *self._record)
