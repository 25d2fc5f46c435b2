"""What a run leaves for people: figures, and sounds beside the pictures they drew."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from align.cards import TOLD
from align.closeness import distances, retrieval
from align.drawing import Artist
from align.encoder import AudioPromptEncoder
from align.examine import Examination, Known
from align.measures import Measured
from align.names import JUDGES, lookup
from align.sheet import sample_sheet


class Evaluation(Protocol):
    """The options that decide what is drawn and judged."""

    pictures: int
    judge: str
    samples: int


def tell(folder: Path, options: dict[str, Any], known: Known) -> None:
    """Writes what an encoder was trained on beside it."""
    story = {"options": options} | asdict(known)
    text = json.dumps(story, indent=1)
    (folder / TOLD).write_text(text + "\n")


def told(run: str) -> tuple[dict[str, Any], Known]:
    """What a run's folder tells of its data: the options of its data, and captions by label.

    Raises:
        ValueError: the file that tells it is damaged.
    """
    path = Path(run) / TOLD
    if not path.exists():
        return {}, Known({})
    try:
        story = json.loads(path.read_text("utf-8"))
        known = Known(story["captions"], story.get("licences", {}), story.get("rows", ""))
        return story["options"]["data"], known
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what align.train wrote: {error!r}") from error


def load_encoder(run: str) -> AudioPromptEncoder:
    """The trained encoder of a folder or a hub id.

    Raises:
        ValueError: there is none.
    """
    try:
        encoder: AudioPromptEncoder = AudioPromptEncoder.from_pretrained(run)
    except (OSError, ValueError, KeyError) as error:
        raise no_encoder(run, error) from error
    return encoder


def no_encoder(run: str, error: Exception) -> ValueError:
    """What is said where a folder or a hub id holds no encoder."""
    reason = next(iter(str(error).splitlines()), "")
    return ValueError(
        f"there is no trained encoder {run!r}: give a folder that align.train wrote, "
        f"or a hub id that can be reached ({reason})"
    )


def first_of_each(labels: list[str], count: int) -> list[int]:
    """`count` row numbers, of as many labels as there are, in the labels' order."""
    seen: dict[str, int] = {}
    ranked = []
    for i, label in enumerate(labels):
        seen[label] = seen.get(label, -1) + 1
        ranked.append((seen[label], label, i))
    return [i for _, _, i in sorted(ranked)[:count]]


def draw_samples(examination: Examination, artist: Artist, path: Path) -> None:
    """Draws every recording of an examination, and its caption, into a sheet."""
    rows = list(range(len(examination.heard)))
    null = examination.head.null(len(rows))
    text = examination.text_prompts(examination.heard.captions)
    pictures = {
        "from the sound": artist.draw(examination.prompts(rows), null, rows),
        "from its caption": artist.draw(text, null, rows),
    }
    features = [examination.ear.spectrogram(row[0]) for row in examination.heard.features]
    sample_sheet(path, features, examination.heard.captions, pictures)


def examined(
    examination: Examination, artist: Artist | None, evaluation: Evaluation, sheet: Path | None
) -> dict[str, Measured]:
    """All figures of an examination, and its sample sheet where a path is given.

    Raises:
        ValueError: there is no such judge.
    """
    figures = examination.embeds() | distances(examination) | retrieval(examination)
    if evaluation.judge != "none" and evaluation.judge not in JUDGES:
        raise ValueError(
            f"there is no judge {evaluation.judge!r}; there are: {', '.join(JUDGES)}, none"
        )
    if artist is not None and evaluation.pictures and evaluation.judge != "none":
        judge = lookup(JUDGES, evaluation.judge)()
        figures |= examination.pictures(artist, judge, evaluation.pictures)
    if artist is not None and evaluation.samples and sheet is not None:
        rows = first_of_each(examination.heard.labels, evaluation.samples)
        draw_samples(examination.only(rows), artist, sheet)
    return figures
