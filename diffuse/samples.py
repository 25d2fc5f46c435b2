"""The sample sheet: fixed sounds, and what is drawn of them before and after."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from align.drawing import Artist
from align.outcome import first_of_each
from align.sheet import sample_sheet
from diffuse.data import Pairs
from diffuse.drawing import Drawing

if TYPE_CHECKING:
    from diffuse.averages import Average
    from diffuse.session import Session


def sample_rows(drawing: Drawing, pairs: Pairs, count: int) -> list[int]:
    """The fixed rows: of as many different labels as there are, those of one thing first."""
    labels = [pairs.labels[i] for i in drawing.prepared.kept]
    names = [label if " + " not in label else f"~{label}" for label in labels]
    return first_of_each(names, count)


def draw_sheet(drawing: Drawing, pairs: Pairs, features: list[np.ndarray], rows: list[int],
               path: Path) -> None:  # fmt: skip
    """Writes the sheet: what is heard, the prompt, and pictures in three rows.

    Args:
        drawing: with the adapter.
        pairs: that the rows are of.
        features: of each row's recording a spectrogram, a frame a row.
        rows: which.
        path: of the PNG.
    """
    kept = drawing.prepared.kept
    prompts = [pairs.prompts[kept[i]] for i in rows]
    seeds, levels = list(range(len(rows))), drawing.levels(rows)
    pictures = {"embeds swapped": drawing.from_embeds(rows, seeds, "samples, before")}
    pictures["prompt and sound"] = drawing.from_texts(prompts, seeds, levels, "samples")
    drawing.attached.set_audio_scale(0.0)
    pictures["audio scale 0"] = drawing.from_texts(prompts, seeds, levels, "samples, scale 0")
    drawing.attached.set_audio_scale(1.0)
    titles = [f"{pairs.labels[kept[i]]}: “{text}”" for i, text in zip(rows, prompts, strict=True)]
    sample_sheet(path, features, titles, pictures)


def features_of(encoder: Any, pairs: Pairs, prepared: Any, rows: list[int]) -> list[np.ndarray]:
    """The first window of each row's recording as a spectrogram, a frame a row."""
    ear = encoder.ear
    sounds = (pairs.rows[prepared.kept[i]]["recording"] for i in rows)
    return [ear.spectrogram(np.asarray(ear.features(sound)[0])) for sound in sounds]


class Sampling(TrainerCallback):
    """Draws the fixed sounds at every evaluation, by the average where one is kept."""

    def __init__(self, session: Session, average: Average | None) -> None:
        self._session, self._average = session, average

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes samples/step-N.png into the stage's folder."""
        if not state.is_world_process_zero:
            return
        session, given = self._session, self._session.options.evaluation
        pipeline = session.pipeline
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(session.attached.unet.device)
        artist = Artist(pipeline, given.draw_steps, given.guidance)
        held = (session.texts, session.unseen, session.substitutes)
        drawing = Drawing(artist, session.attached, *held)
        rows = sample_rows(drawing, session.held_out, given.samples)
        features = session.sample_features(rows)
        mode = session.adapter.training
        with self._average.standing_in() if self._average else nullcontext():
            path = Path(args.output_dir) / f"samples/step-{state.global_step}.png"
            draw_sheet(drawing, session.held_out, features, rows, path)
        session.adapter.train(mode)
