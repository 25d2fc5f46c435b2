"""Synthetic captions of a view, complete or limited to its audible part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from soundprompt.mini.world import CLASS_COLORS, CLASSES, View

# The first phrase of a class is its plain caption. "{c}" is replaced by the color, if any.
CLASS_PHRASES = {
    "dog": ("a{c} dog barking", "a barking{c} dog", "a{c} dog that barks"),
    "rain": ("rain falling", "falling rain", "rain pouring down"),
    "sea waves": ("sea waves on the shore", "waves of the sea", "the sea rolling in"),
    "crying baby": ("a baby{c} crying", "a crying baby{c}", "a baby{c} that cries"),
    "clock tick": ("a{c} clock ticking", "a ticking{c} clock", "a{c} clock that ticks"),
    "sneezing": ("a person{c} sneezing", "a sneezing person{c}", "a person{c} who sneezes"),
    "helicopter": (
        "a{c} helicopter flying",
        "a flying{c} helicopter",
        "a{c} helicopter in the air",
    ),
    "chainsaw": ("a{c} chainsaw running", "a running{c} chainsaw", "a{c} chainsaw at work"),
    "rooster": ("a{c} rooster crowing", "a crowing{c} rooster", "a{c} rooster that crows"),
    "crackling fire": ("a fire crackling", "a crackling fire", "a fire that crackles"),
}
# The color of people is that of their clothes.
CLOTHED_CLASSES = ("crying baby", "sneezing")
BACKGROUND_TEMPLATES = (
    "{near} with {far} in the background",
    "{near} and {far} far away",
    "{near} while {far} can be heard behind",
)
SCENE_PHRASES = {
    "day": ("by day", "in daylight", "on a sunny day"),
    "dusk": ("at dusk", "at sunset", "in the evening"),
    "night": ("at night", "in the night", "under the moon"),
}
OPENINGS = ("", "", "a picture of ", "a drawing of ")


def _class_phrase(label: str, wording: int | np.integer, color: str | None = None) -> str:
    slot = ""
    if color is not None:
        slot = f" in {color}" if label in CLOTHED_CLASSES else f" {color}"
    return CLASS_PHRASES[label][wording].format(c=slot)


def class_caption(label: str) -> str:
    """Return the plain caption of a class, such as "a dog barking".

    Args:
        label: Name of the class.

    Raises:
        KeyError: There is no such class.
    """
    return _class_phrase(label, 0)


def audio_captions(near: str, far: str | None = None) -> list[str]:
    """List all captions of the audible part of a view.

    Args:
        near: Class in the foreground.
        far: Class in the background, if any.
    """
    if far is None:
        return [_class_phrase(near, i) for i in range(len(CLASS_PHRASES[near]))]
    return [
        frame.format(near=_class_phrase(near, i), far=_class_phrase(far, j))
        for frame in BACKGROUND_TEMPLATES
        for i in range(len(CLASS_PHRASES[near]))
        for j in range(len(CLASS_PHRASES[far]))
    ]


def audio_caption(view: View, rng: np.random.Generator) -> str:
    """Sample a caption of the audible part of a view.

    Args:
        view: View to describe.
        rng: Random generator.
    """
    wordings = audio_captions(view.near, view.far)
    return wordings[rng.integers(len(wordings))]


def _body(view: View, rng: np.random.Generator, color: bool) -> str:
    near = _class_phrase(view.near, rng.integers(3), view.color if color else None)
    if view.far is None:
        return near
    return BACKGROUND_TEMPLATES[rng.integers(3)].format(
        near=near, far=_class_phrase(view.far, rng.integers(3))
    )


def caption(
    view: View,
    rng: np.random.Generator,
    *,
    scene: bool | None = None,
    color: bool | None = None,
) -> str:
    """Sample a caption of a view.

    Args:
        view: View to describe.
        rng: Random generator.
        scene: Whether to name the time of day. Sampled by default.
        color: Whether to name the color. Sampled by default.
    """
    scene = rng.random() < 0.5 if scene is None else scene
    color = rng.random() < 0.5 if color is None else color
    text = OPENINGS[rng.integers(4)] + _body(view, rng, color)
    if not scene:
        return text
    when = SCENE_PHRASES[view.scene][rng.integers(3)]
    return f"{text} {when}" if rng.random() < 0.75 else f"{when}, {text}"


def scene_caption(scene: str, rng: np.random.Generator) -> str:
    """Sample a caption of the time of day only, such as "a picture at night".

    Args:
        scene: Time of day.
        rng: Random generator.
    """
    opening = ("a picture", "a drawing")[rng.integers(2)]
    return f"{opening} {SCENE_PHRASES[scene][rng.integers(3)]}"


def corpus() -> Iterator[str]:
    """Yield texts with every word of the captions, to train the tokenizer."""
    for label in CLASSES:
        for color in (None, *CLASS_COLORS.get(label, ())):
            yield from (_class_phrase(label, i, color) for i in range(3))
    yield from (frame.format(near="", far="") for frame in BACKGROUND_TEMPLATES)
    yield from (f", {text}" for texts in SCENE_PHRASES.values() for text in texts)
    yield from OPENINGS
    yield "a picture, a drawing, a sound"
