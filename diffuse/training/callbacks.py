"""Trainer callbacks: EMA of the trained weights, sample sheets and checkpoint markers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from diffuse.training.checkpoints import COMPLETE_MARKER

EMA_NAME = "ema.pt"


class EMACallback(TrainerCallback):
    """Update the EMA of the trained weights after every step, with diffusers' EMAModel.

    Args:
        weights: Parameters that are trained.
        decay: EMA decay.
    """

    def __init__(self, weights: list[nn.Parameter], decay: float) -> None:
        from diffusers.training_utils import EMAModel

        self._weights = weights
        self._model = EMAModel(weights, decay=decay)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the EMA to the device that the Trainer has moved the weights to."""
        self._model.to(args.device)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Update the EMA."""
        self._model.step(self._weights)

    def save(self, folder: Path) -> None:
        """Save the EMA in a checkpoint.

        Args:
            folder: Folder of the checkpoint.
        """
        torch.save(self._model.state_dict(), folder / EMA_NAME)

    def load(self, folder: Path) -> None:
        """Load the EMA from a checkpoint.

        Args:
            folder: Folder of the checkpoint.
        """
        self._model.load_state_dict(torch.load(folder / EMA_NAME, weights_only=True))

    def copy_to_model(self) -> None:
        """Copy the EMA to the weights."""
        self._model.copy_to(self._weights)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Context in which the weights are the EMA; nested contexts have no further effect."""
        if self._model.temp_stored_params is not None:
            yield
            return
        self._model.store(self._weights)
        self._model.copy_to(self._weights)
        try:
            yield
        finally:
            self._model.restore(self._weights)


class SampleSheetCallback(TrainerCallback):
    """Generate a sample sheet at every evaluation, with the EMA weights if there are any.

    Args:
        generate: Function that writes a sheet to a path.
        ema: EMA of the trained weights, or None.
    """

    def __init__(self, generate: Callable[[Path], None], ema: EMACallback | None) -> None:
        self._generate, self._ema = generate, ema

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write samples/step-N.png to the folder of the stage."""
        if not state.is_world_process_zero:
            return
        with self._ema.averaged_weights() if self._ema else nullcontext():
            self._generate(Path(args.output_dir) / f"samples/step-{state.global_step}.png")


class CompletionCallback(TrainerCallback):
    """Mark a checkpoint as complete after all of its files have been written."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Create the marker file."""
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE_MARKER).touch()
