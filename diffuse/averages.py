"""The moving average of what trains, by diffusers' EMAModel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

FILE = "average.pt"


class Average(TrainerCallback):
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
        torch.save(self._model.state_dict(), folder / FILE)

    def load(self, folder: Path) -> None:
        """Goes on from a checkpoint."""
        self._model.load_state_dict(torch.load(folder / FILE, weights_only=True))

    def settle(self) -> None:
        """The average becomes the weights."""
        self._model.copy_to(self._weights)

    @contextmanager
    def standing_in(self) -> Iterator[None]:
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
