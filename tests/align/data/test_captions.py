"""Captions of labels, and parsing captions into phrases."""

from __future__ import annotations

import pytest

from align.data.captions import Phrases, clean_label, labels_to_caption, parse_caption


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Water_tap_and_faucet", "water tap and faucet"),
        ("Keyboard_(musical)", "keyboard"),
        ("crying_baby", "crying baby"),
        ("  Dog ", "dog"),
        ("", ""),
    ],
)
def test_clean_label(label: str, words: str) -> None:
    assert clean_label(label) == words


@pytest.mark.parametrize(
    ("labels", "caption"),
    [
        (["Bark", "Dog", "Domestic_animals_and_pets", "Animal"], "bark, dog"),
        (["Electric_guitar", "Guitar", "Plucked_string_instrument", "Musical_instrument", "Music"],
         "electric guitar, guitar"),
        (["Keyboard_(musical)", "Musical_instrument", "Music"], "keyboard"),
        (["Rain", "rain", "Thunder"], "rain, thunder"),
        ([], ""),
        (["_", ""], ""),
    ],
)  # fmt: skip
def test_labels_to_caption(labels: list[str], caption: str) -> None:
    assert labels_to_caption(labels) == caption
    expected = f"the sound of {caption}" if caption else ""
    assert labels_to_caption(labels, "the sound of {}") == expected


def test_labels_to_caption_invalid_template_raises() -> None:
    with pytest.raises(ValueError, match=r"must contain \{\} for the labels, not 'a sound'"):
        labels_to_caption(["Rain"], "a sound")


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("a dog barking while rain falls in a forest",
         Phrases("a dog barking", "rain falls", "in a forest")),
        ("A train passes as a horn honks", Phrases("A train passes", "a horn honks")),
        ("a bass guitar and drums with a crowd cheering",
         Phrases("a bass guitar", "drums", "with a crowd cheering")),
        ("rain falling with a dog barking in the background",
         Phrases("rain falling", "a dog barking")),
        ("a man speaks, birds chirp, then a door closes.",
         Phrases("a man speaks", "birds chirp, a door closes")),
        ("an engine idles, followed by people talking in the distance",
         Phrases("an engine idles", "people talking")),
        ("In a forest, birds sing", Phrases("birds sing", "", "In a forest")),
        ("footsteps on sand near the sea", Phrases("footsteps", "", "on sand near the sea")),
        ("wind blowing in the background", Phrases("wind blowing")),
        ("in the rain", Phrases("in the rain", "", "in the rain")),
        ("thunder", Phrases("thunder")),
    ],
)  # fmt: skip
def test_parse_caption(caption: str, phrases: Phrases) -> None:
    assert parse_caption(caption) == phrases


@pytest.mark.parametrize(
    "caption",
    [
        "a bass guitar",  # as
        "sandpaper scratching",  # and
        "raining",  # in
        "a hand clapping",  # and
        "withered leaves rustling",  # with
        "a basin filling",  # as, in
        "a meanwhile clock",  # while
        "thunder as well as rain",  # compares
        "a sound such as wind",
    ],
)
def test_parse_caption_matches_whole_words(caption: str) -> None:
    assert parse_caption(caption) == Phrases(caption)
