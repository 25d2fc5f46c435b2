"""Sample sounds drawn while a training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from align.examine import Examination, Known
from align.outcome import draw_samples, first_of_each
from align.ranks import is_main

if TYPE_CHECKING:
    from align.session import Session


class Samples(TrainerCallback):
    """Draws the fixed sample sounds at every evaluation."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes samples/step-N.png."""
        session = self._session
        if session.artist is None or not is_main():
            return
        encoder, mode = session.encoder, session.encoder.training
        rows = first_of_each(session.held_out.labels, session.options.evaluation.samples)
        drawn = session.held_out.only(rows)
        seen = Examination.of(encoder, session.space, drawn, Known({}))
        draw_samples(seen, session.artist, session.folder / f"samples/step-{state.global_step}.png")
        encoder.train(mode)
