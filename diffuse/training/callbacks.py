"""The moving average of what trains, by diffusers' EMAModel."""

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
    """Follows the weights after every step, and stands in for them where they are used.

    Args:
        weights: that train.
        decay: of the average.
    """

    def __init__(self, weights: list[nn.Parameter], decay: float) -> None:
        from diffusers.training_utils import EMAModel

        self._weights = weights
        self._model = EMAModel(weights, decay=decay)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer may have moved the weights to its device."""
        self._model.to(args.device)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the new weights in."""
        self._model.step(self._weights)

    def save(self, folder: Path) -> None:
        """Writes the average into a checkpoint."""
        torch.save(self._model.state_dict(), folder / EMA_NAME)

    def load(self, folder: Path) -> None:
        """Goes on from a checkpoint."""
        self._model.load_state_dict(torch.load(folder / EMA_NAME, weights_only=True))

    def copy_to_model(self) -> None:
        """The average becomes the weights."""
        self._model.copy_to(self._weights)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within it the weights are the average; within another it changes nothing."""
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
    """Draws the fixed sounds at every evaluation, by the average where one is kept.

    Args:
        generate: writes a sheet to a path.
        average: of what trains.
    """

    def __init__(self, generate: Callable[[Path], None], ema: EMACallback | None) -> None:
        self._generate, self._ema = generate, ema

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes samples/step-N.png into the stage's folder."""
        if not state.is_world_process_zero:
            return
        with self._ema.averaged_weights() if self._ema else nullcontext():
            self._generate(Path(args.output_dir) / f"samples/step-{state.global_step}.png")


class CompletionCallback(TrainerCallback):
    """Marks a checkpoint as whole when all of it is written."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called when all else is written."""
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE_MARKER).touch()
