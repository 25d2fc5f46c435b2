"""Make captions of labels, and parse captions into foreground, background and ambience."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# AudioSet's parent classes, which FSD50K adds to the specific labels of a clip. They do not name an
# object that could be generated, so they are dropped if a clip has a more specific label.
GENERIC_LABELS = frozenset(
    """animal|domestic animals and pets|livestock and farm animals and working animals
    |wild animals|human voice|human group actions|hands|digestive|respiratory sounds
    |domestic sounds and home sounds|mechanisms|tools|liquid|music|musical instrument
    |bowed string instrument|plucked string instrument|brass instrument|keyboard|percussion
    |mallet percussion|wind instrument and woodwind instrument|vehicle|motor vehicle
    |rail transport|bird vocalization and bird call and bird song""".replace("\n", "")
    .replace("    |", "|")
    .split("|")
)


def clean_label(label: str) -> str:
    """Convert a label to words: "Keyboard_(musical)" becomes "keyboard", and _ a space."""
    words = re.sub(r"\([^)]*\)", " ", label).replace("_", " ")
    return " ".join(words.split()).lower()


def labels_to_caption(labels: Sequence[str], template: str = "{}") -> str:
    """Make a caption of a clip's labels without generic parent classes.

    Args:
        labels: Labels as in the dataset, such as "Water_tap_and_faucet"; duplicates are removed.
        template: Template with {} for the labels, e.g. "the sound of {}".

    Returns:
        Caption such as "bark, dog"; empty if there are no labels.

    Raises:
        ValueError: If the template has no {}.
    """
    if "{}" not in template:
        raise ValueError(f"a caption template must contain {{}} for the labels, not {template!r}")
    caption = ", ".join(specific_labels(labels))
    return template.replace("{}", caption) if caption else ""


def specific_labels(labels: Sequence[str]) -> list[str]:
    """Return a clip's labels as words, in order; generic ones only if there are no others."""
    words = list(dict.fromkeys(filter(None, map(clean_label, labels))))
    return [word for word in words if word not in GENERIC_LABELS] or words[:1]


@dataclass(frozen=True)
class Phrases:
    """Phrases of a caption; a phrase that the caption lacks is empty.

    Attributes:
        foreground: Main sound source.
        background: Other sound sources.
        ambience: Place or surroundings.
    """

    foreground: str
    background: str = ""
    ambience: str = ""


# Whole words only: "bass" contains "as", "raining" contains "in", "hand" contains "and".
_CONJUNCTION = re.compile(
    r"\b(?:while|whilst|as|and)\b|\bfollowed by\b|\bthen\b|[,;]", re.IGNORECASE
)
_PREPOSITION = re.compile(
    r"\b(?:with|in|inside|outside|on|at|near|during|over|under|amid)\b", re.IGNORECASE
)
# "such as", "as well as" and "as if" compare; they do not start a second sound source.
_COMPARISON = re.compile(r"\b(?:such as|as if|as though|as well as|just as)\b", re.IGNORECASE)
_IN_BACKGROUND = re.compile(r"\bin (?:the )?(?:background|distance)\b", re.IGNORECASE)


def parse_caption(caption: str) -> Phrases:
    """Split a caption into foreground, background and ambience at conjunctions and prepositions.

    "while", "as", "and", "then", "followed by" and commas start a background source; "with", "in"
    and other prepositions start the ambience. Sources "in the background" are the background, and
    so is what follows a preposition there: "a dog with rain in the background".

    Args:
        caption: Caption in English.
    """
    text = " ".join(caption.split())
    foregrounds: list[str] = []
    backgrounds: list[str] = []
    ambiences: list[str] = []
    for clause in _clauses(text):
        distant = _IN_BACKGROUND.search(clause)
        thing, rest = _split(clause[: distant.start()] if distant else clause)
        if distant and not rest:
            backgrounds.append(thing)
            continue
        foregrounds.append(thing)
        if distant:
            backgrounds.append(_trim(_PREPOSITION.sub("", rest, count=1)))
        else:
            ambiences.append(rest)
    foregrounds = [thing for thing in foregrounds if thing] or [
        backgrounds.pop(0) if backgrounds else _trim(text)
    ]
    return Phrases(foregrounds[0], _joined([*foregrounds[1:], *backgrounds]), _joined(ambiences))


def _clauses(text: str) -> list[str]:
    masked = _COMPARISON.sub(lambda match: "_" * len(match[0]), text)
    words = list(_CONJUNCTION.finditer(masked))
    starts = [0, *(word.end() for word in words)]
    stops = [*(word.start() for word in words), len(text)]
    clauses = [_trim(text[a:b]) for a, b in zip(starts, stops, strict=True)]
    return [clause for clause in clauses if clause]


def _split(clause: str) -> tuple[str, str]:
    """Split a clause before its first preposition."""
    found = _PREPOSITION.search(clause)
    at = len(clause) if found is None else found.start()
    return _trim(clause[:at]), _trim(clause[at:])


def _trim(text: str) -> str:
    return text.strip(" ,;.")


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(part for part in parts if part)
