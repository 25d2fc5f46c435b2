"""Captions of labels, and the phrases of captions: what is near, what is behind it, and where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# AudioSet's families that FSD50K adds to every clip beside what can be heard. They name no one
# thing that could be drawn, so they are left out wherever something more particular stands.
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
    """A label as words: "Keyboard_(musical)" is "keyboard", "crying_baby" is "crying baby"."""
    words = re.sub(r"\([^)]*\)", " ", label).replace("_", " ")
    return " ".join(words.split()).lower()


def labels_to_caption(labels: Sequence[str], template: str = "{}") -> str:
    """A caption of what a clip's labels name, the particular ones first and families left out.

    Args:
        labels: as a data set writes them, such as "Water_tap_and_faucet"; repeated ones count
            once.
        template: what is said around them, with {} in their place.

    Returns:
        Such as "bark, dog"; empty where there are no labels.

    Raises:
        ValueError: the template has no place for the labels.
    """
    if "{}" not in template:
        raise ValueError(f"a template has {{}} where the labels go, not {template!r}")
    caption = ", ".join(specific_labels(labels))
    return template.replace("{}", caption) if caption else ""


def specific_labels(labels: Sequence[str]) -> list[str]:
    """What a clip's labels name, as words, in their order; families only where nothing else is."""
    words = list(dict.fromkeys(filter(None, map(clean_label, labels))))
    return [word for word in words if word not in GENERIC_LABELS] or words[:1]


@dataclass(frozen=True)
class Phrases:
    """The parts of a caption; what a caption does not say is empty.

    Attributes:
        foreground: what is heard first and foremost.
        background: what is heard beside or behind it.
        ambience: where it is, or what surrounds it.
    """

    foreground: str
    background: str = ""
    ambience: str = ""


# By whole words only: "as" is in "bass", "in" in "raining", "and" in "hand".
_CONJUNCTION = re.compile(
    r"\b(?:while|whilst|as|and)\b|\bfollowed by\b|\bthen\b|[,;]", re.IGNORECASE
)
_PREPOSITION = re.compile(
    r"\b(?:with|in|inside|outside|on|at|near|during|over|under|amid)\b", re.IGNORECASE
)
# "such as", "as well as" and "as if" compare, they do not say what is heard at the same time.
_COMPARISON = re.compile(r"\b(?:such as|as if|as though|as well as|just as)\b", re.IGNORECASE)
_IN_BACKGROUND = re.compile(r"\bin (?:the )?(?:background|distance)\b", re.IGNORECASE)


def parse_caption(caption: str) -> Phrases:
    """Divides a caption by its words, as CLAP2Diffusion's plan has it.

    "while", "as" and "and" (and commas, "then", "followed by") begin what is heard beside; "with",
    "in" and their like begin what surrounds it. What is said to be "in the background" is the
    background, and what stands "with" it there is, too: "a dog with rain in the background".
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
    """What comes before the first word of place, and the rest with that word."""
    found = _PREPOSITION.search(clause)
    at = len(clause) if found is None else found.start()
    return _trim(clause[:at]), _trim(clause[at:])


def _trim(text: str) -> str:
    return text.strip(" ,;.")


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(part for part in parts if part)
