"""Figures: what is compared with what, and the pictures and sheets beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from align.evaluation.evaluator import AlignmentEvaluator, generate_sample_sheet
from align.evaluation.generation import ImageGenerator, save_sample_sheet, select_per_label
from align.evaluation.statistics import Estimate, flatten_metrics, format_table
from align.hub.run_record import TrainingRecord
from align.models.processing import AudioProcessor
from align.preprocessing.features import AudioFeatures
from align.prompts.embeds import PromptEmbeds
from align.training.run import TrainingRun
from tests.helpers.launches import command, session


def said(*pairs: tuple[str, str]) -> AudioFeatures:
    """Recordings without sound, by label and caption."""
    features = [[np.zeros((4, 4), np.float32)] for _ in pairs]
    labels, captions = [p[0] for p in pairs], [p[1] for p in pairs]
    return AudioFeatures(features, captions, labels, [str(i) for i in range(len(pairs))])


def test_known_captions_are_not_changed_by_new_rows() -> None:
    known = TrainingRecord({"dog": ["a dog"]})
    more = known.with_rows(["dog", "rain", "rain"], ["a wolf", "rain", "falling rain"])
    assert more.captions == {"dog": ["a dog"], "rain": ["rain", "falling rain"]}
    assert known.captions == {"dog": ["a dog"]}


def test_the_plain_caption_is_the_most_frequent() -> None:
    known = TrainingRecord({"dog": ["b", "a", "b", "c"], "cat": ["z", "y", "y", "z"]})
    assert known.most_frequent_caption("dog") == "b"
    assert known.most_frequent_caption("cat") == "y"


def test_first_of_each_takes_labels_in_turn() -> None:
    labels = ["b", "b", "a", "c", "a", "b"]
    assert select_per_label(labels, 3) == [2, 0, 3]
    assert select_per_label(labels, 5) == [2, 0, 3, 4, 1]
    assert select_per_label(labels, 99) == [2, 0, 3, 4, 1, 5]


def test_figures_are_flat_with_their_intervals() -> None:
    figures = {"class_accuracy": Estimate.proportion([True, True, True, False])}
    kept = flatten_metrics(figures)
    assert kept["class_accuracy"] == 0.75 and kept["class_accuracy_n"] == 4
    assert kept["class_accuracy_interval"] == [0.3006, 0.9544]
    assert list(kept) == ["class_accuracy", "class_accuracy_interval", "class_accuracy_n"]
    assert "0.750  [0.301, 0.954]       4" in format_table(figures)


@pytest.fixture(scope="module")
def opened(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    """A session with an encoder that was trained a little."""
    folder = tmp_path_factory.mktemp("examined")
    more = ("--num_sheet_samples", "3", "--folds", "1", "2", "--eval_folds", "3")
    opened = session(command(tiny_base, tiny_clap, sound_folder, folder, *more))
    opened.train()
    return opened


@pytest.fixture(scope="module")
def seen(opened: TrainingRun) -> AlignmentEvaluator:
    """The examination of its training recordings."""
    return AlignmentEvaluator.from_encoder(
        opened.encoder, opened.space, opened.train_features, opened.record
    )


def perfect(seen: AlignmentEvaluator) -> AlignmentEvaluator:
    """An examination of a listener who answers with each label's own embeds."""
    from dataclasses import replace

    wanted = torch.tensor([seen.class_names.index(label) for label in seen.audio_features.labels])
    return replace(seen, predictions=PromptEmbeds(seen.class_embeds[wanted]))


def test_a_perfect_listener_reaches_the_oracle(seen: AlignmentEvaluator) -> None:
    figures = perfect(seen).embed_metrics()
    assert figures["class_accuracy"].value == 1
    assert figures["centered_cosine"] == figures["centered_cosine_oracle"]
    assert figures["centered_cosine"].value == pytest.approx(1, abs=1e-4)  # one caption a label
    assert {figure.n for figure in figures.values()} == {9}


def test_a_listener_who_always_says_the_same(seen: AlignmentEvaluator) -> None:
    from dataclasses import replace

    same = seen.class_embeds[[seen.class_names.index("low")]].expand(9, -1, -1)
    deaf = replace(seen, predictions=PromptEmbeds(same)).embed_metrics()
    assert deaf["class_accuracy"].value == pytest.approx(1 / 3)
    assert deaf["centered_cosine"].value < 0.5
    assert deaf["centered_cosine_oracle"] == seen.embed_metrics()["centered_cosine_oracle"]


def test_wordings_lower_what_a_perfect_listener_reaches(
    seen: AlignmentEvaluator, opened: TrainingRun
) -> None:
    from dataclasses import replace

    captions = list(seen.audio_features.captions)
    low = seen.audio_features.labels.index("low")
    captions[low] = "a dog barking"  # another wording than the label's others have
    heard = replace(seen.audio_features, captions=captions)
    other = AlignmentEvaluator.from_encoder(opened.encoder, opened.space, heard, opened.record)
    assert "a dog barking" not in opened.record.captions["low"]
    assert other.embed_metrics()["centered_cosine_oracle"].value < 0.99


def test_what_was_trained_on_says_what_a_label_means(
    seen: AlignmentEvaluator, opened: TrainingRun
) -> None:
    assert opened.record.captions["low"] == ["a low hum"] * 3
    assert seen.class_names == ["high", "low", "middle"]
    exact = perfect(seen)
    assert exact.nearest_captions() == seen.audio_features.captions


def test_real_embeds_return_from_standardised_ones(seen: AlignmentEvaluator) -> None:
    rows = [0, 4]
    restored = perfect(seen).prompt_embeds(rows).embeds
    text = seen.caption_prompt_embeds([seen.audio_features.captions[i] for i in rows]).embeds
    assert text.std() > 0.1
    assert torch.allclose(restored, text, atol=1e-3)


def test_only_keeps_rows_together(seen: AlignmentEvaluator) -> None:
    some = seen.select([5, 2])
    assert some.audio_features.labels == [
        seen.audio_features.labels[5],
        seen.audio_features.labels[2],
    ]
    assert torch.equal(some.predictions.embeds, seen.predictions.embeds[[5, 2]])
    assert np.array_equal(some.audio_features.features[0][0], seen.audio_features.features[5][0])
    assert torch.equal(some.prompt_embeds([0]).embeds, seen.prompt_embeds([5]).embeds)


class Strict:
    """Judges by the label alone, and keeps what it saw."""

    def __init__(self, *right: str) -> None:
        self.accepted = right
        self.seen: list[list[np.ndarray]] = []
        self.labels: list[list[str]] = []

    def is_correct(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """True for the labels it accepts."""
        self.seen.append([np.asarray(image) for image in images])
        self.labels.append(list(labels))
        return [label in self.accepted for label in labels]


def test_pictures_are_drawn_three_ways_from_the_same_seeds(
    seen: AlignmentEvaluator, opened: TrainingRun
) -> None:
    assert opened.image_generator is not None
    judge = Strict("low")
    figures = perfect(seen).image_metrics(opened.image_generator, judge, 11)
    assert list(figures) == [
        "image_accuracy", "image_accuracy_text", "image_accuracy_nearest_caption",
    ]  # fmt: skip
    labels = (seen.audio_features.labels * 2)[:11]
    assert judge.labels == [labels] * 3
    assert {figure.n for figure in figures.values()} == {11}
    assert {figure.value for figure in figures.values()} == {labels.count("low") / 11}
    sound, text, nearest = judge.seen
    assert not np.array_equal(sound[0], sound[9])  # the same row again, from another seed
    # Who hears everything draws what the captions draw.
    assert all(np.array_equal(a, b) for a, b in zip(text, nearest, strict=True))
    close = [np.abs(a.astype(int) - b).mean() for a, b in zip(sound, text, strict=True)]
    assert max(close) < 2


def test_a_picture_follows_from_its_prompt_and_seed(
    seen: AlignmentEvaluator, opened: TrainingRun
) -> None:
    artist = opened.image_generator
    assert artist is not None
    prompts, null = seen.prompt_embeds([0, 1, 2]), seen.head.unconditional(3)

    def draw(with_seeds: list[int], batch_size: int = 32) -> list[np.ndarray]:
        return [np.asarray(i) for i in artist.generate(prompts, null, with_seeds, "", batch_size)]

    first = draw([7, 8, 9])
    assert len(first) == 3 and first[0].ndim == 3
    assert all(np.array_equal(a, b) for a, b in zip(first, draw([7, 8, 9]), strict=True))
    assert not np.array_equal(first[0], draw([6, 8, 9])[0])
    one_by_one = draw([7, 8, 9], batch_size=1)
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(first, one_by_one, strict=True)) < 3
    assert not np.array_equal(first[0], first[1])


def test_guidance_and_steps_count(seen: AlignmentEvaluator, opened: TrainingRun) -> None:
    assert opened.image_generator is not None
    prompts, null = seen.prompt_embeds([0]), seen.head.unconditional(1)
    pictures = [
        np.asarray(
            ImageGenerator(opened.image_generator.pipeline, steps, guidance).generate(
                prompts, null, [0]
            )[0]
        )
        for steps, guidance in ((2, 5.0), (3, 5.0), (2, 1.0))
    ]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_samples_of_an_examination(
    seen: AlignmentEvaluator, opened: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened.image_generator is not None
    generate_sample_sheet(
        seen.select([0, 1]), opened.image_generator, tmp_path / "new" / "sheet.png"
    )
    assert Image.open(tmp_path / "new" / "sheet.png").format == "PNG"
    # Frames that stand side by side in the features stand one after the other in the sheet.
    shown: list[np.ndarray] = []
    monkeypatch.setattr(
        "align.evaluation.evaluator.save_sample_sheet", lambda path, given, *_: shown.extend(given)
    )
    monkeypatch.setattr(AudioProcessor, "num_mel_bins", seen.processor.num_mel_bins // 2)
    generate_sample_sheet(seen.select([0]), opened.image_generator, tmp_path / "sheet.png")
    frames, width = seen.audio_features.features[0][0].shape
    assert shown[0].shape == (2 * frames, width // 2)


def test_a_sheet_shows_every_picture(tmp_path: Path) -> None:
    colours = [(250, 10, 20), (10, 250, 20), (20, 10, 250), (250, 250, 10)]
    images = [Image.new("RGB", (8, 8), colour) for colour in colours]
    features = [np.random.default_rng(i).normal(size=(10, 6)) for i in range(2)]
    rows = {"sound": images[:2], "text": images[2:]}
    save_sample_sheet(tmp_path / "sheet.png", features, ["a dog", "a very long caption " * 9], rows)
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
        save_sample_sheet(tmp_path / "sheet.png", features, ["one"], rows)
