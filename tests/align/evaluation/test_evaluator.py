"""Figures: what is compared with what, and the pictures and sheets beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from align.evaluation.evaluator import Examination, draw_samples
from align.evaluation.generation import Artist, first_of_each, sample_sheet
from align.evaluation.statistics import Measured, as_table, flat
from align.hub.run_record import Known
from align.models.processing import Ear
from align.preprocessing.features import Heard
from align.prompts.embeds import Prompts
from align.training.run import Session
from tests.helpers.launches import command, session


def said(*pairs: tuple[str, str]) -> Heard:
    """Recordings without sound, by label and caption."""
    features = [[np.zeros((4, 4), np.float32)] for _ in pairs]
    labels, captions = [p[0] for p in pairs], [p[1] for p in pairs]
    return Heard(features, captions, labels, [str(i) for i in range(len(pairs))])


def test_known_captions_are_not_changed_by_new_rows() -> None:
    known = Known({"dog": ["a dog"]})
    more = known.with_rows(["dog", "rain", "rain"], ["a wolf", "rain", "falling rain"])
    assert more.captions == {"dog": ["a dog"], "rain": ["rain", "falling rain"]}
    assert known.captions == {"dog": ["a dog"]}


def test_the_plain_caption_is_the_most_frequent() -> None:
    known = Known({"dog": ["b", "a", "b", "c"], "cat": ["z", "y", "y", "z"]})
    assert known.plain("dog") == "b"
    assert known.plain("cat") == "y"


def test_first_of_each_takes_labels_in_turn() -> None:
    labels = ["b", "b", "a", "c", "a", "b"]
    assert first_of_each(labels, 3) == [2, 0, 3]
    assert first_of_each(labels, 5) == [2, 0, 3, 4, 1]
    assert first_of_each(labels, 99) == [2, 0, 3, 4, 1, 5]


def test_figures_are_flat_with_their_intervals() -> None:
    figures = {"class_accuracy": Measured.share([True, True, True, False])}
    kept = flat(figures)
    assert kept["class_accuracy"] == 0.75 and kept["class_accuracy_n"] == 4
    assert kept["class_accuracy_interval"] == [0.3006, 0.9544]
    assert list(kept) == ["class_accuracy", "class_accuracy_interval", "class_accuracy_n"]
    assert "0.750  [0.301, 0.954]       4" in as_table(figures)


@pytest.fixture(scope="module")
def opened(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Session:
    """A session with an encoder that was trained a little."""
    folder = tmp_path_factory.mktemp("examined")
    more = ("--samples", "3", "--folds", "1", "2", "--eval_folds", "3")
    opened = session(command(tiny_base, tiny_clap, sound_folder, folder, *more))
    opened.train()
    return opened


@pytest.fixture(scope="module")
def seen(opened: Session) -> Examination:
    """The examination of its training recordings."""
    return Examination.of(opened.encoder, opened.space, opened.heard, opened.known)


def perfect(seen: Examination) -> Examination:
    """An examination of a listener who answers with each label's own embeds."""
    from dataclasses import replace

    wanted = torch.tensor([seen.names.index(label) for label in seen.heard.labels])
    return replace(seen, standardised=Prompts(seen.classes[wanted]))


def test_a_perfect_listener_reaches_the_oracle(seen: Examination) -> None:
    figures = perfect(seen).embeds()
    assert figures["class_accuracy"].value == 1
    assert figures["centred_cosine"] == figures["centred_cosine_oracle"]
    assert figures["centred_cosine"].value == pytest.approx(1, abs=1e-4)  # one caption a label
    assert {figure.n for figure in figures.values()} == {9}


def test_a_listener_who_always_says_the_same(seen: Examination) -> None:
    from dataclasses import replace

    same = seen.classes[[seen.names.index("low")]].expand(9, -1, -1)
    deaf = replace(seen, standardised=Prompts(same)).embeds()
    assert deaf["class_accuracy"].value == pytest.approx(1 / 3)
    assert deaf["centred_cosine"].value < 0.5
    assert deaf["centred_cosine_oracle"] == seen.embeds()["centred_cosine_oracle"]


def test_wordings_lower_what_a_perfect_listener_reaches(seen: Examination, opened: Session) -> None:
    from dataclasses import replace

    captions = list(seen.heard.captions)
    low = seen.heard.labels.index("low")
    captions[low] = "a dog barking"  # another wording than the label's others have
    heard = replace(seen.heard, captions=captions)
    other = Examination.of(opened.encoder, opened.space, heard, opened.known)
    assert "a dog barking" not in opened.known.captions["low"]
    assert other.embeds()["centred_cosine_oracle"].value < 0.99


def test_what_was_trained_on_says_what_a_label_means(seen: Examination, opened: Session) -> None:
    assert opened.known.captions["low"] == ["a low hum"] * 3
    assert seen.names == ["high", "low", "middle"]
    exact = perfect(seen)
    assert exact.nearest_captions() == seen.heard.captions


def test_real_embeds_return_from_standardised_ones(seen: Examination) -> None:
    rows = [0, 4]
    restored = perfect(seen).prompts(rows).embeds
    text = seen.text_prompts([seen.heard.captions[i] for i in rows]).embeds
    assert text.std() > 0.1
    assert torch.allclose(restored, text, atol=1e-3)


def test_only_keeps_rows_together(seen: Examination) -> None:
    some = seen.only([5, 2])
    assert some.heard.labels == [seen.heard.labels[5], seen.heard.labels[2]]
    assert torch.equal(some.standardised.embeds, seen.standardised.embeds[[5, 2]])
    assert np.array_equal(some.heard.features[0][0], seen.heard.features[5][0])
    assert torch.equal(some.prompts([0]).embeds, seen.prompts([5]).embeds)


class Strict:
    """Judges by the label alone, and keeps what it saw."""

    def __init__(self, *right: str) -> None:
        self.accepted = right
        self.seen: list[list[np.ndarray]] = []
        self.labels: list[list[str]] = []

    def right(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """True for the labels it accepts."""
        self.seen.append([np.asarray(image) for image in images])
        self.labels.append(list(labels))
        return [label in self.accepted for label in labels]


def test_pictures_are_drawn_three_ways_from_the_same_seeds(
    seen: Examination, opened: Session
) -> None:
    assert opened.artist is not None
    judge = Strict("low")
    figures = perfect(seen).pictures(opened.artist, judge, 11)
    assert list(figures) == [
        "right_pictures", "right_pictures_text", "right_pictures_nearest_caption",
    ]  # fmt: skip
    labels = (seen.heard.labels * 2)[:11]
    assert judge.labels == [labels] * 3
    assert {figure.n for figure in figures.values()} == {11}
    assert {figure.value for figure in figures.values()} == {labels.count("low") / 11}
    sound, text, nearest = judge.seen
    assert not np.array_equal(sound[0], sound[9])  # the same row again, from another seed
    # Who hears everything draws what the captions draw.
    assert all(np.array_equal(a, b) for a, b in zip(text, nearest, strict=True))
    close = [np.abs(a.astype(int) - b).mean() for a, b in zip(sound, text, strict=True)]
    assert max(close) < 2


def test_a_picture_follows_from_its_prompt_and_seed(seen: Examination, opened: Session) -> None:
    artist = opened.artist
    assert artist is not None
    prompts, null = seen.prompts([0, 1, 2]), seen.head.null(3)

    def draw(with_seeds: list[int], batch_size: int = 32) -> list[np.ndarray]:
        return [np.asarray(i) for i in artist.draw(prompts, null, with_seeds, "", batch_size)]

    first = draw([7, 8, 9])
    assert len(first) == 3 and first[0].ndim == 3
    assert all(np.array_equal(a, b) for a, b in zip(first, draw([7, 8, 9]), strict=True))
    assert not np.array_equal(first[0], draw([6, 8, 9])[0])
    one_by_one = draw([7, 8, 9], batch_size=1)
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(first, one_by_one, strict=True)) < 3
    assert not np.array_equal(first[0], first[1])


def test_guidance_and_steps_count(seen: Examination, opened: Session) -> None:
    assert opened.artist is not None
    prompts, null = seen.prompts([0]), seen.head.null(1)
    pictures = [
        np.asarray(Artist(opened.artist.pipeline, steps, guidance).draw(prompts, null, [0])[0])
        for steps, guidance in ((2, 5.0), (3, 5.0), (2, 1.0))
    ]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_samples_of_an_examination(
    seen: Examination, opened: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened.artist is not None
    draw_samples(seen.only([0, 1]), opened.artist, tmp_path / "new" / "sheet.png")
    assert Image.open(tmp_path / "new" / "sheet.png").format == "PNG"
    # Frames that stand side by side in the features stand one after the other in the sheet.
    shown: list[np.ndarray] = []
    monkeypatch.setattr(
        "align.evaluation.evaluator.sample_sheet", lambda path, given, *_: shown.extend(given)
    )
    monkeypatch.setattr(Ear, "bins", seen.ear.bins // 2)
    draw_samples(seen.only([0]), opened.artist, tmp_path / "sheet.png")
    frames, width = seen.heard.features[0][0].shape
    assert shown[0].shape == (2 * frames, width // 2)


def test_a_sheet_shows_every_picture(tmp_path: Path) -> None:
    colours = [(250, 10, 20), (10, 250, 20), (20, 10, 250), (250, 250, 10)]
    images = [Image.new("RGB", (8, 8), colour) for colour in colours]
    features = [np.random.default_rng(i).normal(size=(10, 6)) for i in range(2)]
    rows = {"sound": images[:2], "text": images[2:]}
    sample_sheet(tmp_path / "sheet.png", features, ["a dog", "a very long caption " * 9], rows)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    places = []
    for colour in colours:
        found = np.argwhere(np.abs(sheet - colour).max(2) < 6)
        assert len(found) > 500
        places.append(found.mean(0))
    first, second, third, fourth = places
    assert first[1] < second[1] and third[1] < fourth[1]
    assert max(first[0], second[0]) < min(third[0], fourth[0])
    with pytest.raises(ValueError):
        sample_sheet(tmp_path / "sheet.png", features, ["one"], rows)
