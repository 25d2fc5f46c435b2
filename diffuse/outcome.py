"""What a run leaves for people: figures, and a sheet of sounds and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.drawing import Artist
from align.measures import Measured
from align.names import JUDGES, lookup
from diffuse.attachment import attach
from diffuse.drawing import Drawing
from diffuse.examine import Examination
from diffuse.samples import draw_sheet, sample_rows

if TYPE_CHECKING:
    from diffuse.session import Session

TEXT_SHARE = 2  # of --pictures: one of so many is drawn from text alone, before and after


def measured(session: Session) -> dict[str, Measured]:
    """The saved adapter's figures on the held-out pairs; its sheet goes to the run's folder."""
    given, base = session.options.evaluation, session.options.model.base
    if not (given.pictures and given.judge != "none") and not given.samples:
        return {}
    artist = Artist.from_pretrained(base, given.draw_steps, given.guidance)
    attached = attach(artist.pipeline, session.folder)
    drawing = Drawing(artist, attached, session.texts, session.unseen, session.substitutes)
    figures: dict[str, Measured] = {}
    if given.pictures and given.judge != "none":
        seen = Examination(drawing, session.held_out, lookup(JUDGES, given.judge)())
        figures = seen.hearing(given.pictures)
        before = Artist.from_pretrained(base, given.draw_steps, given.guidance)
        figures |= seen.text_alone(-(-given.pictures // TEXT_SHARE), before)
    if given.samples:
        rows = sample_rows(drawing, session.held_out, given.samples)
        features = session.sample_features(rows)
        draw_sheet(drawing, session.held_out, features, rows, session.folder / "samples.png")
    return figures
