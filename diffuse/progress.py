"""Progress of a drawing, step by step, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Called with the steps that are done and all steps; true stops.
Callback = Callable[[int, int], Any]


class Progress:
    """Tells a callback the steps that are done, and stops a pipeline when it asks for that."""

    def __init__(self, callback: Callback | None, steps: int) -> None:
        self._callback, self._steps, self._done = callback, steps, 0
        self.stopped = False

    def __call__(self, pipeline: Any, step: int, time: Any, given: dict[str, Any]) -> Any:
        """As diffusers' callback_on_step_end."""
        self._done += 1
        if self._callback is not None and self._callback(self._done, self._steps):
            self.stopped = pipeline._interrupt = True
        return given
