"""The metrics for `evaluate` and the estimates made of them, against values computed by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from align.evaluation.evaluator import embed_distances, retrieval_metrics
from align.evaluation.metrics import FOLDER, METRICS, load_metric
from align.preprocessing.features import AudioFeatures
from align.preprocessing.text_embeds import CaptionEmbeds
from align.prompts.embeds import EmbedStatistics, PromptEmbeds


def alignment(ours: Any, theirs: Any, **more: Any) -> dict[str, Any]:
    """Results of the alignment metric."""
    return dict(load_metric("alignment").compute(predictions=ours, references=theirs, **more))


def retrieved(scores: Any, relevant: Any, **more: Any) -> dict[str, Any]:
    """Results of the retrieval metric."""
    return dict(load_metric("retrieval").compute(predictions=scores, references=relevant, **more))


def test_alignment_by_hand() -> None:
    # (3, 4) and (3, 0) are 4 apart, (1, 1) and (2, 1) are 1 apart.
    found = alignment([[3.0, 4.0], [1.0, 1.0]], [[3.0, 0.0], [2.0, 1.0]], per_row=True)
    assert found["euclidean"] == [4.0, 1.0]
    assert found["mse"] == [8.0, 0.5]
    assert found["cosine"] == pytest.approx([3 / 5, 3 / 10**0.5])
    # The references' center is (2.5, 0.5), which leaves (.5, 3.5) · (.5, -.5) and
    # (-1.5, .5) · (-.5, .5).
    first = (0.25 - 1.75) / (12.5**0.5 * 0.5**0.5)
    second = (0.75 + 0.25) / (2.5**0.5 * 0.5**0.5)
    assert found["centered_cosine"] == pytest.approx([first, second])
    means = alignment([[3.0, 4.0], [1.0, 1.0]], [[3.0, 0.0], [2.0, 1.0]])
    assert means == {name: pytest.approx(sum(v) / 2) for name, v in found.items()}


def test_alignment_with_given_center_and_std() -> None:
    found = alignment([[3.0, 8.0]], [[5.0, 4.0]], center=[1.0, 0.0], std=[2.0, 4.0])
    # (2, 8) / (2, 4) = (1, 2) against (4, 4) / (2, 4) = (2, 1).
    assert found["centered_cosine"] == pytest.approx(4 / 5)
    assert found["euclidean"] == pytest.approx(20**0.5)  # of the rows as they are


def test_cosine_of_zero_rows_is_zero() -> None:
    found = alignment([[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], per_row=True)
    assert found["cosine"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("ours", "theirs", "more", "message"),
    [
        ([[1.0, 2.0]], [[1.0]], {}, "the same length"),
        ([[1.0]], [[2.0]], {}, "pass center"),
        ([[1.0]], [[2.0]], {"center": [1.0, 2.0]}, "center has 2 values but the rows have 1"),
        ([[1.0]], [[2.0]], {"center": [0.0], "std": [0.0]}, "above 0"),
        ([[float("nan")]], [[2.0]], {"center": [0.0]}, "must be finite"),
    ],
)
def test_alignment_with_invalid_inputs_raises(
    ours: Any, theirs: Any, more: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        alignment(ours, theirs, **more)


def test_retrieval_by_caption_by_hand() -> None:
    # The relevant candidates rank first, second and third.
    scores = [[0.9, 0.1, 0.0], [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]]
    found = retrieved(scores, [[0], [1], [2]])
    assert found["forward_R@1"] == pytest.approx(1 / 3)
    assert found["forward_R@5"] == found["forward_R@10"] == 1
    assert found["forward_mAP@10"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    # By column: .9 .5 .3 ranks row 0 first; .1 .4 .2 row 1 first; 0 .3 .1 row 2 second.
    assert found["backward_R@1"] == pytest.approx(2 / 3)
    assert found["backward_mAP@10"] == pytest.approx((1 + 1 + 1 / 2) / 3)


def test_retrieval_with_several_captions_by_hand() -> None:
    # Six candidates; the relevant ones, 0 and 5, rank third and sixth.
    found = retrieved([[0.4, 0.6, 0.5, 0.3, 0.2, 0.1]], [[0, 5]])
    assert found["forward_R@1"] == 0 and found["forward_R@5"] == 1
    assert found["forward_mAP@10"] == pytest.approx((1 / 3 + 2 / 6) / 2)
    # Only two candidates are relevant to a row: they are the backward queries and find it.
    assert found["backward_R@1"] == 1
    each = retrieved([[0.4, 0.6, 0.5, 0.3, 0.2, 0.1]], [[0, 5]], per_query=True)
    assert (len(each["forward_R@1"]), len(each["backward_R@1"])) == (1, 2)


def test_average_precision_is_truncated_at_ten() -> None:
    # Twelve of twelve are relevant: all ten that could be found are found.
    assert retrieved([list(range(12))], [list(range(12))])["forward_mAP@10"] == 1
    # One is relevant, at rank eleven: not counted.
    scores = [[float(-i) for i in range(12)]]
    found = retrieved(scores, [[10]])
    assert found["forward_R@10"] == found["forward_mAP@10"] == 0
    assert retrieved(scores, [[9]])["forward_mAP@10"] == pytest.approx(1 / 10)


def test_retrieval_of_constant_scores_is_zero() -> None:
    found = retrieved(np.ones((20, 20)), [[i] for i in range(20)])
    assert found["forward_R@10"] == found["backward_R@10"] == found["forward_mAP@10"] == 0


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([[1.0, 2.0]], [[]], "give at least one"),
        ([[1.0, 2.0]], [[2]], "from 0 to 1"),
        ([[1.0, 2.0], [1.0]], [[0], [0]], "one score for every candidate"),
        ([[1.0, float("nan")]], [[0]], "must be finite"),
    ],
)
def test_retrieval_with_invalid_inputs_raises(scores: Any, relevant: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieved(scores, relevant)


def test_load_metric_with_unknown_name_raises() -> None:
    with pytest.raises(ValueError, match="no metric 'bleu'; there are: alignment, retrieval"):
        load_metric("bleu")


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_metric_is_self_contained(name: str, tmp_path: Path) -> None:
    """Copied to another folder, a metric loads by path without the project."""
    (tmp_path / name).mkdir()
    source = (FOLDER / name / f"{name}.py").read_text()
    (tmp_path / name / f"{name}.py").write_text(source)
    rows = {"alignment": ([[1.0, 0.0], [0.0, 1.0]],) * 2, "retrieval": ([[1.0, 0.0]], [[0]])}[name]
    code = (
        "import evaluate, json, sys; ours, theirs = json.loads(sys.argv[2]);"
        "metric = evaluate.load(sys.argv[1]);"
        "print(json.dumps(metric.compute(predictions=ours, references=theirs)));"
        "assert 'align' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / name), json.dumps(rows)],
        capture_output=True, text=True, cwd=tmp_path, timeout=240, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mse" if name == "alignment" else "forward_R@1"] == float(name == "retrieval")


LENGTH, WIDTH = 2, 3


def evaluator_of(predictions: torch.Tensor, clips: list[tuple[str, str, str]]) -> Any:
    """An evaluator for `retrieval_metrics`, from rows of (clip, label, caption) and predictions.

    Different captions are orthogonal: caption i is the i-th unit vector.
    """
    captions = list(dict.fromkeys(caption for _, _, caption in clips))
    embeds = torch.eye(LENGTH * WIDTH)[: len(captions)].reshape(-1, LENGTH, WIDTH)
    names = sorted({label for _, label, _ in clips})
    mean = [
        torch.stack([embeds[captions.index(c)] for _, one, c in clips if one == label]).mean(0)
        for label in names
    ]
    none = torch.zeros(LENGTH, WIDTH)
    statistics = EmbedStatistics(none, none + 1, none.bool())
    clip_ids, labels, texts = (list(column) for column in zip(*clips, strict=True))
    return SimpleNamespace(
        audio_features=AudioFeatures([[]] * len(clips), texts, labels, clip_ids),
        predictions=PromptEmbeds(predictions),
        class_names=names,
        class_embeds=torch.stack(mean),
        caption_embeds=CaptionEmbeds(captions, PromptEmbeds(embeds), torch.ones(len(captions))),
        head=SimpleNamespace(statistics=lambda: statistics),
    )


# Two clips with two captions each, and one clip with the first one's label.
CLIPS = [
    ("a.wav", "dog", "a dog"), ("a.wav", "dog", "a barking dog"),
    ("b.wav", "rain", "rain"), ("b.wav", "rain", "falling rain"), ("c.wav", "dog", "a hound"),
]  # fmt: skip


def predictions_of(*captions: int) -> torch.Tensor:
    """Predictions that equal, for each row, the embeds of the caption with this index."""
    return torch.eye(LENGTH * WIDTH)[list(captions)].reshape(-1, LENGTH, WIDTH)


def test_clip_with_several_captions_is_one_query() -> None:
    found = retrieval_metrics(evaluator_of(predictions_of(0, 0, 2, 2, 4), CLIPS))
    assert found["audio_to_caption_R@1"].n == 3 and found["caption_to_audio_R@1"].n == 5
    assert found["audio_to_class_R@1"].n == 3
    # "a barking dog" is nearest to no clip, and "a hound" to c.wav, with the same label.
    assert found["audio_to_caption_R@1"].value == 1
    assert found["caption_to_audio_R@1"].value == pytest.approx(3 / 5)
    # Metrics that cannot fail are omitted: R@5 among 5 captions, 2 classes and 3 clips.
    assert set(found) == {
        f"{way}_{measure}"
        for way in ("audio_to_caption", "caption_to_audio", "audio_to_class", "class_to_audio")
        for measure in ("R@1", "mAP@10")
    }
    low, value, high = (getattr(found["audio_to_caption_R@1"], k) for k in ("low", "value", "high"))
    assert low < 0.5 and value == high == 1


def test_retrieval_of_wrong_predictions_is_low() -> None:
    found = retrieval_metrics(evaluator_of(predictions_of(2, 2, 0, 0, 4), CLIPS))
    assert found["audio_to_caption_R@1"].value == pytest.approx(1 / 3)
    assert found["audio_to_class_R@1"].value == pytest.approx(1 / 3)


def test_class_retrieval_is_omitted_with_one_caption_per_label() -> None:
    clips = [("a.wav", "dog", "a dog"), ("b.wav", "rain", "rain"), ("c.wav", "sea", "the sea")]
    found = retrieval_metrics(evaluator_of(predictions_of(0, 1, 2), clips))
    assert not [name for name in found if "class" in name]
    assert found["caption_to_audio_R@1"].value == 1


def test_embed_distances_use_prompt_embeds(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = evaluator_of(predictions_of(0, 1, 2, 3, 0), CLIPS)
    found = embed_distances(evaluator)
    assert found["euclidean"].value == pytest.approx(2**0.5 / 5)
    assert found["mse"].value == pytest.approx(2 / 6 / 5)
    assert found["cosine"].value == pytest.approx(4 / 5)
    # Statistics with another mean and std change the embeds, and so the distances.
    shift = EmbedStatistics(torch.ones(2, 3), torch.full((2, 3), 2.0), torch.zeros(2, 3).bool())
    evaluator.head.statistics = lambda: shift
    assert embed_distances(evaluator)["euclidean"].value > 2
    # The result does not depend on the chunk size.
    evaluator = evaluator_of(predictions_of(0, 1, 2, 3, 0), CLIPS)
    monkeypatch.setattr("align.evaluation.evaluator.METRIC_CHUNK_SIZE", 12)
    assert embed_distances(evaluator) == found


def test_mini_classifier_supports_its_labels() -> None:
    from soundprompt.mini.image_classifier import load_image_classifier

    known = ("dog", "dog + rain", "cat", "dog + rain + rooster", "dog then rain")
    assert [load_image_classifier().supports(label) for label in known] == [
        True,
        True,
        False,
        False,
        False,
    ]
