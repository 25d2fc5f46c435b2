"""Further prompt spaces of a training: what their heads learn, and how well they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from align.beginning import tell_space
from align.criterion import AlignmentLoss, new_criterion
from align.distillation import KeyValueDistillation
from align.drawing import Artist
from align.examine import Examination
from align.prompts import PromptSpace
from align.targets import CaptionTable

if TYPE_CHECKING:
    from align.measures import Measured
    from align.session import Session
    from align.train import Options


def check_several(options: Options) -> None:
    """Refuses what does not go together with several bases.

    Raises:
        ValueError: an option would not act on all of them.
    """
    if len(options.model.base) < 2:
        return
    if options.training.gradient_cache:
        raise ValueError("--gradient_cache is for one --base: give one, and add the others later")
    if options.loss.learn_temperature:
        raise ValueError("--learn_temperature is for one --base: give one, or its temperature")


def new_criteria(
    session: Session, captions: Sequence[str], everything: Mapping[str, list[str]]
) -> dict[str, AlignmentLoss]:
    """The loss of every further space by its name; its head is told the space's statistics.

    Args:
        session: the run.
        captions: of all rows, heard and held out.
        everything: captions by label.
    """
    return {space.base: _new_criterion(session, space, captions, everything) for space in
            session.others}  # fmt: skip


def _new_criterion(
    session: Session,
    space: PromptSpace,
    captions: Sequence[str],
    everything: Mapping[str, list[str]],
) -> AlignmentLoss:
    options, head = session.options, session.encoder.head(space.base)
    table = CaptionTable.of(space, captions, session.cache)
    own = table.only(session.heard.captions)
    tell_space(head, own, space)
    distillation = None
    if options.loss.distillation_weight:
        drawing = Artist.from_pretrained(space.base, 1, 1.0)
        embeds = (block.embeds for block in own.blocks())
        distillation = KeyValueDistillation(drawing.unet, embeds)
    return new_criterion(
        options.loss,
        table,
        head,
        dict(everything),
        lengths=space.lengths(table.captions),
        distillation=distillation,
    )


def measure_others(session: Session) -> dict[str, Measured]:
    """The figures of the further spaces' embeds, each with its space's name."""
    found: dict[str, Measured] = {}
    for space in session.others:
        seen = Examination.of(
            session.encoder, space, session.held_out, session.known, name=space.base,
            cache=session.cache,
        )  # fmt: skip
        found |= {f"{figure} ({space.base})": value for figure, value in seen.embeds().items()}
    return found
