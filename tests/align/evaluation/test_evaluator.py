"""Metrics of an encoder, generated images and sample sheets."""

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


def clips(*pairs: tuple[str, str]) -> AudioFeatures:
    """Features of clips without audio, by label and caption."""
    features = [[np.zeros((4, 4), np.float32)] for _ in pairs]
    labels, captions = [p[0] for p in pairs], [p[1] for p in pairs]
    return AudioFeatures(features, captions, labels, [str(i) for i in range(len(pairs))])


def test_record_with_rows_keeps_known_captions() -> None:
    known = TrainingRecord({"dog": ["a dog"]})
    more = known.with_rows(["dog", "rain", "rain"], ["a wolf", "rain", "falling rain"])
    assert more.captions == {"dog": ["a dog"], "rain": ["rain", "falling rain"]}
    assert known.captions == {"dog": ["a dog"]}


def test_most_frequent_caption() -> None:
    known = TrainingRecord({"dog": ["b", "a", "b", "c"], "cat": ["z", "y", "y", "z"]})
    assert known.most_frequent_caption("dog") == "b"
    assert known.most_frequent_caption("cat") == "y"


def test_select_per_label_cycles_over_labels() -> None:
    labels = ["b", "b", "a", "c", "a", "b"]
    assert select_per_label(labels, 3) == [2, 0, 3]
    assert select_per_label(labels, 5) == [2, 0, 3, 4, 1]
    assert select_per_label(labels, 99) == [2, 0, 3, 4, 1, 5]


def test_flatten_metrics_includes_intervals() -> None:
    figures = {"class_accuracy": Estimate.proportion([True, True, True, False])}
    kept = flatten_metrics(figures)
    assert kept["class_accuracy"] == 0.75 and kept["class_accuracy_n"] == 4
    assert kept["class_accuracy_interval"] == [0.3006, 0.9544]
    assert list(kept) == ["class_accuracy", "class_accuracy_interval", "class_accuracy_n"]
    assert "0.750  [0.301, 0.954]       4" in format_table(figures)


@pytest.fixture(scope="module")
def run(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainingRun:
    """A training run with an encoder that was trained for a few steps."""
    folder = tmp_path_factory.mktemp("examined")
    more = ("--num_sheet_samples", "3", "--folds", "1", "2", "--eval_folds", "3")
    run = session(command(tiny_base, tiny_clap, sound_folder, folder, *more))
    run.train()
    return run


@pytest.fixture(scope="module")
def evaluator(run: TrainingRun) -> AlignmentEvaluator:
    """An evaluator of the run's training clips."""
    return AlignmentEvaluator.from_encoder(run.encoder, run.space, run.train_features, run.record)


def oracle(evaluator: AlignmentEvaluator) -> AlignmentEvaluator:
    """An evaluator whose predictions are each label's own embeds."""
    from dataclasses import replace

    wanted = torch.tensor(
        [evaluator.class_names.index(label) for label in evaluator.audio_features.labels]
    )
    return replace(evaluator, predictions=PromptEmbeds(evaluator.class_embeds[wanted]))


def test_oracle_predictions_reach_the_oracle(evaluator: AlignmentEvaluator) -> None:
    figures = oracle(evaluator).embed_metrics()
    assert figures["class_accuracy"].value == 1
    assert figures["centered_cosine"] == figures["centered_cosine_oracle"]
    assert figures["centered_cosine"].value == pytest.approx(1, abs=1e-4)  # one caption a label
    assert {figure.n for figure in figures.values()} == {9}


def test_constant_predictions_score_low(evaluator: AlignmentEvaluator) -> None:
    from dataclasses import replace

    same = evaluator.class_embeds[[evaluator.class_names.index("low")]].expand(9, -1, -1)
    constant = replace(evaluator, predictions=PromptEmbeds(same)).embed_metrics()
    assert constant["class_accuracy"].value == pytest.approx(1 / 3)
    assert constant["centered_cosine"].value < 0.5
    assert constant["centered_cosine_oracle"] == evaluator.embed_metrics()["centered_cosine_oracle"]


def test_oracle_drops_with_several_wordings(
    evaluator: AlignmentEvaluator, run: TrainingRun
) -> None:
    from dataclasses import replace

    captions = list(evaluator.audio_features.captions)
    low = evaluator.audio_features.labels.index("low")
    captions[low] = "a dog barking"  # differs from the label's other captions
    features = replace(evaluator.audio_features, captions=captions)
    other = AlignmentEvaluator.from_encoder(run.encoder, run.space, features, run.record)
    assert "a dog barking" not in run.record.captions["low"]
    assert other.embed_metrics()["centered_cosine_oracle"].value < 0.99


def test_class_embeds_use_training_captions(
    evaluator: AlignmentEvaluator, run: TrainingRun
) -> None:
    assert run.record.captions["low"] == ["a low hum"] * 3
    assert evaluator.class_names == ["high", "low", "middle"]
    exact = oracle(evaluator)
    assert exact.nearest_captions() == evaluator.audio_features.captions


def test_prompt_embeds_restore_standardized_embeds(evaluator: AlignmentEvaluator) -> None:
    rows = [0, 4]
    restored = oracle(evaluator).prompt_embeds(rows).embeds
    text = evaluator.caption_prompt_embeds(
        [evaluator.audio_features.captions[i] for i in rows]
    ).embeds
    assert text.std() > 0.1
    assert torch.allclose(restored, text, atol=1e-3)


def test_select_keeps_rows_aligned(evaluator: AlignmentEvaluator) -> None:
    some = evaluator.select([5, 2])
    assert some.audio_features.labels == [
        evaluator.audio_features.labels[5],
        evaluator.audio_features.labels[2],
    ]
    assert torch.equal(some.predictions.embeds, evaluator.predictions.embeds[[5, 2]])
    assert np.array_equal(
        some.audio_features.features[0][0], evaluator.audio_features.features[5][0]
    )
    assert torch.equal(some.prompt_embeds([0]).embeds, evaluator.prompt_embeds([5]).embeds)


class LabelClassifier:
    """Classifier that decides by the label alone and records the images it is given."""

    def __init__(self, *accepted: str) -> None:
        self.accepted = accepted
        self.images: list[list[np.ndarray]] = []
        self.labels: list[list[str]] = []

    def is_correct(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """Returns True for the accepted labels."""
        self.images.append([np.asarray(image) for image in images])
        self.labels.append(list(labels))
        return [label in self.accepted for label in labels]


def test_image_metrics_use_the_same_seeds(evaluator: AlignmentEvaluator, run: TrainingRun) -> None:
    assert run.image_generator is not None
    classifier = LabelClassifier("low")
    figures = oracle(evaluator).image_metrics(run.image_generator, classifier, 11)
    assert list(figures) == [
        "image_accuracy", "image_accuracy_text", "image_accuracy_nearest_caption",
    ]  # fmt: skip
    labels = (evaluator.audio_features.labels * 2)[:11]
    assert classifier.labels == [labels] * 3
    assert {figure.n for figure in figures.values()} == {11}
    assert {figure.value for figure in figures.values()} == {labels.count("low") / 11}
    sound, text, nearest = classifier.images
    assert not np.array_equal(sound[0], sound[9])  # the same row with another seed
    # The oracle's embeds generate the captions' images.
    assert all(np.array_equal(a, b) for a, b in zip(text, nearest, strict=True))
    close = [np.abs(a.astype(int) - b).mean() for a, b in zip(sound, text, strict=True)]
    assert max(close) < 2


def test_generate_is_deterministic_per_prompt_and_seed(
    evaluator: AlignmentEvaluator, run: TrainingRun
) -> None:
    image_generator = run.image_generator
    assert image_generator is not None
    prompts, unconditional = evaluator.prompt_embeds([0, 1, 2]), evaluator.head.unconditional(3)

    def generate(seeds: list[int], batch_size: int = 32) -> list[np.ndarray]:
        images = image_generator.generate(prompts, unconditional, seeds, "", batch_size)
        return [np.asarray(image) for image in images]

    first = generate([7, 8, 9])
    assert len(first) == 3 and first[0].ndim == 3
    assert all(np.array_equal(a, b) for a, b in zip(first, generate([7, 8, 9]), strict=True))
    assert not np.array_equal(first[0], generate([6, 8, 9])[0])
    one_by_one = generate([7, 8, 9], batch_size=1)
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(first, one_by_one, strict=True)) < 3
    assert not np.array_equal(first[0], first[1])


def test_generate_depends_on_guidance_and_steps(
    evaluator: AlignmentEvaluator, run: TrainingRun
) -> None:
    assert run.image_generator is not None
    prompts, unconditional = evaluator.prompt_embeds([0]), evaluator.head.unconditional(1)
    images = [
        np.asarray(
            ImageGenerator(run.image_generator.pipeline, steps, guidance).generate(
                prompts, unconditional, [0]
            )[0]
        )
        for steps, guidance in ((2, 5.0), (3, 5.0), (2, 1.0))
    ]
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_generate_sample_sheet(
    evaluator: AlignmentEvaluator, run: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.image_generator is not None
    generate_sample_sheet(
        evaluator.select([0, 1]), run.image_generator, tmp_path / "new" / "sheet.png"
    )
    assert Image.open(tmp_path / "new" / "sheet.png").format == "PNG"
    # Frames stacked along the feature dimension are consecutive in the sheet.
    shown: list[np.ndarray] = []
    monkeypatch.setattr(
        "align.evaluation.evaluator.save_sample_sheet", lambda path, given, *_: shown.extend(given)
    )
    monkeypatch.setattr(AudioProcessor, "num_mel_bins", evaluator.processor.num_mel_bins // 2)
    generate_sample_sheet(evaluator.select([0]), run.image_generator, tmp_path / "sheet.png")
    frames, width = evaluator.audio_features.features[0][0].shape
    assert shown[0].shape == (2 * frames, width // 2)


def test_save_sample_sheet_contains_every_image(tmp_path: Path) -> None:
    colors = [(250, 10, 20), (10, 250, 20), (20, 10, 250), (250, 250, 10)]
    images = [Image.new("RGB", (8, 8), color) for color in colors]
    features = [np.random.default_rng(i).normal(size=(10, 6)) for i in range(2)]
    rows = {"sound": images[:2], "text": images[2:]}
    save_sample_sheet(tmp_path / "sheet.png", features, ["a dog", "a very long caption " * 9], rows)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    places = []
    for color in colors:
        found = np.argwhere(np.abs(sheet - color).max(2) < 6)
        assert len(found) > 500
        places.append(found.mean(0))
    first, second, third, fourth = places
    assert first[1] < second[1] and third[1] < fourth[1]
    assert max(first[0], second[0]) < min(third[0], fourth[0])
    with pytest.raises(ValueError):
        save_sample_sheet(tmp_path / "sheet.png", features, ["one"], rows)
