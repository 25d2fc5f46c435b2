"""The metrics for `evaluate`, and the figures made of them, against cases worked by hand."""

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
    """Figures of the alignment metric."""
    return dict(load_metric("alignment").compute(predictions=ours, references=theirs, **more))


def retrieved(scores: Any, right: Any, **more: Any) -> dict[str, Any]:
    """Figures of the retrieval metric."""
    return dict(load_metric("retrieval").compute(predictions=scores, references=right, **more))


def test_distances_by_hand() -> None:
    # (3, 4) and (3, 0) are 4 apart, (1, 1) and (2, 1) are 1 apart.
    found = alignment([[3.0, 4.0], [1.0, 1.0]], [[3.0, 0.0], [2.0, 1.0]], per_row=True)
    assert found["euclidean"] == [4.0, 1.0]
    assert found["mse"] == [8.0, 0.5]
    assert found["cosine"] == pytest.approx([3 / 5, 3 / 10**0.5])
    # The references' centre is (2.5, 0.5): left are (.5, 3.5) · (.5, -.5), (-1.5, .5) · (-.5, .5).
    first = (0.25 - 1.75) / (12.5**0.5 * 0.5**0.5)
    second = (0.75 + 0.25) / (2.5**0.5 * 0.5**0.5)
    assert found["centered_cosine"] == pytest.approx([first, second])
    means = alignment([[3.0, 4.0], [1.0, 1.0]], [[3.0, 0.0], [2.0, 1.0]])
    assert means == {name: pytest.approx(sum(v) / 2) for name, v in found.items()}


def test_a_centre_and_spread_may_be_given() -> None:
    found = alignment([[3.0, 8.0]], [[5.0, 4.0]], center=[1.0, 0.0], std=[2.0, 4.0])
    # (2, 8) / (2, 4) = (1, 2) against (4, 4) / (2, 4) = (2, 1).
    assert found["centered_cosine"] == pytest.approx(4 / 5)
    assert found["euclidean"] == pytest.approx(20**0.5)  # of the rows as they are


def test_a_row_without_length_fits_nothing() -> None:
    found = alignment([[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], per_row=True)
    assert found["cosine"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("ours", "theirs", "more", "said"),
    [
        ([[1.0, 2.0]], [[1.0]], {}, "the same number"),
        ([[1.0]], [[2.0]], {}, "give centre"),
        ([[1.0]], [[2.0]], {"center": [1.0, 2.0]}, "center has 2 numbers and the rows have 1"),
        ([[1.0]], [[2.0]], {"center": [0.0], "std": [0.0]}, "above 0"),
        ([[float("nan")]], [[2.0]], {"center": [0.0]}, "not a finite number"),
    ],
)
def test_wrong_distances_are_refused(ours: Any, theirs: Any, more: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        alignment(ours, theirs, **more)


def test_retrieval_by_caption_by_hand() -> None:
    # Rows find their own candidate first, second and third.
    scores = [[0.9, 0.1, 0.0], [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]]
    found = retrieved(scores, [[0], [1], [2]])
    assert found["forward_R@1"] == pytest.approx(1 / 3)
    assert found["forward_R@5"] == found["forward_R@10"] == 1
    assert found["forward_mAP@10"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    # Down the columns: .9 .5 .3 finds row 0 first; .1 .4 .2 row 1 first; 0 .3 .1 row 2 second.
    assert found["backward_R@1"] == pytest.approx(2 / 3)
    assert found["backward_mAP@10"] == pytest.approx((1 + 1 + 1 / 2) / 3)


def test_several_captions_each_by_hand() -> None:
    # Six candidates; the right ones, 0 and 5, come third and sixth.
    found = retrieved([[0.4, 0.6, 0.5, 0.3, 0.2, 0.1]], [[0, 5]])
    assert found["forward_R@1"] == 0 and found["forward_R@5"] == 1
    assert found["forward_mAP@10"] == pytest.approx((1 / 3 + 2 / 6) / 2)
    # Only two candidates are anybody's: they alone are asked backward, and each finds its row.
    assert found["backward_R@1"] == 1
    each = retrieved([[0.4, 0.6, 0.5, 0.3, 0.2, 0.1]], [[0, 5]], per_query=True)
    assert (len(each["forward_R@1"]), len(each["backward_R@1"])) == (1, 2)


def test_precision_is_cut_at_ten() -> None:
    # Twelve right of twelve: ten could be found among ten, and were.
    assert retrieved([list(range(12))], [list(range(12))])["forward_mAP@10"] == 1
    # One right, in eleventh place: too late.
    scores = [[float(-i) for i in range(12)]]
    found = retrieved(scores, [[10]])
    assert found["forward_R@10"] == found["forward_mAP@10"] == 0
    assert retrieved(scores, [[9]])["forward_mAP@10"] == pytest.approx(1 / 10)


def test_who_always_says_the_same_finds_nothing() -> None:
    found = retrieved(np.ones((20, 20)), [[i] for i in range(20)])
    assert found["forward_R@10"] == found["backward_R@10"] == found["forward_mAP@10"] == 0


@pytest.mark.parametrize(
    ("scores", "right", "said"),
    [
        ([[1.0, 2.0]], [[]], "give at least one"),
        ([[1.0, 2.0]], [[2]], "from 0 to 1"),
        ([[1.0, 2.0], [1.0]], [[0], [0]], "one score for every candidate"),
        ([[1.0, float("nan")]], [[0]], "not a finite number"),
    ],
)
def test_wrong_retrieval_is_refused(scores: Any, right: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        retrieved(scores, right)


def test_a_metric_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="there are: alignment, retrieval"):
        load_metric("bleu")


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_stands_alone(name: str, tmp_path: Path) -> None:
    """Copied to a folder of its own, it loads by its path without the project."""
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


def examination(answers: torch.Tensor, said: list[tuple[str, str, str]]) -> Any:
    """What `closeness` reads of an examination: (recording, label, caption), answers, captions.

    Different captions lie at right angles, the i-th with its first 1 at place i.
    """
    captions = list(dict.fromkeys(caption for _, _, caption in said))
    embeds = torch.eye(LENGTH * WIDTH)[: len(captions)].reshape(-1, LENGTH, WIDTH)
    names = sorted({label for _, label, _ in said})
    mean = [
        torch.stack([embeds[captions.index(c)] for _, one, c in said if one == label]).mean(0)
        for label in names
    ]
    none = torch.zeros(LENGTH, WIDTH)
    statistics = EmbedStatistics(none, none + 1, none.bool())
    heard = AudioFeatures([[]] * len(said), [c for *_, c in said], [k for _, k, _ in said],
                  [r for r, *_ in said])  # fmt: skip
    return SimpleNamespace(
        audio_features=heard, predictions=PromptEmbeds(answers), class_names=names, class_embeds=torch.stack(mean),
        caption_embeds=CaptionEmbeds(captions, PromptEmbeds(embeds), torch.ones(len(captions))),
        head=SimpleNamespace(statistics=lambda: statistics),
    )  # fmt: skip


# Two recordings of two captions each, and one recording of the first one's label.
SAID = [
    ("a.wav", "dog", "a dog"), ("a.wav", "dog", "a barking dog"),
    ("b.wav", "rain", "rain"), ("b.wav", "rain", "falling rain"), ("c.wav", "dog", "a hound"),
]  # fmt: skip


def listener(*heard: int) -> torch.Tensor:
    """Answers of one who hears, for each row, the caption of this number."""
    return torch.eye(LENGTH * WIDTH)[list(heard)].reshape(-1, LENGTH, WIDTH)


def test_a_recording_of_several_captions_is_one_query() -> None:
    found = retrieval_metrics(examination(listener(0, 0, 2, 2, 4), SAID))
    assert found["audio_to_caption_R@1"].n == 3 and found["caption_to_audio_R@1"].n == 5
    assert found["audio_to_class_R@1"].n == 3
    # By hand: "a barking dog" is nearest to none, and "a hound" to c.wav, of the same label.
    assert found["audio_to_caption_R@1"].value == 1
    assert found["caption_to_audio_R@1"].value == pytest.approx(3 / 5)
    # What cannot fail is not reported: of 5 captions R@5, of 2 classes, of 3 recordings.
    assert set(found) == {
        f"{way}_{measure}"
        for way in ("audio_to_caption", "caption_to_audio", "audio_to_class", "class_to_audio")
        for measure in ("R@1", "mAP@10")
    }
    low, value, high = (getattr(found["audio_to_caption_R@1"], k) for k in ("low", "value", "high"))
    assert low < 0.5 and value == high == 1


def test_who_hears_the_wrong_thing_finds_the_wrong_caption() -> None:
    found = retrieval_metrics(examination(listener(2, 2, 0, 0, 4), SAID))
    assert found["audio_to_caption_R@1"].value == pytest.approx(1 / 3)
    assert found["audio_to_class_R@1"].value == pytest.approx(1 / 3)


def test_one_caption_a_label_is_asked_once() -> None:
    said = [("a.wav", "dog", "a dog"), ("b.wav", "rain", "rain"), ("c.wav", "sea", "the sea")]
    found = retrieval_metrics(examination(listener(0, 1, 2), said))
    assert not [name for name in found if "class" in name]
    assert found["caption_to_audio_R@1"].value == 1


def test_distances_are_of_prompt_embeds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = examination(listener(0, 1, 2, 3, 0), SAID)
    found = embed_distances(seen)
    assert found["euclidean"].value == pytest.approx(2**0.5 / 5)
    assert found["mse"].value == pytest.approx(2 / 6 / 5)
    assert found["cosine"].value == pytest.approx(4 / 5)
    # A centre and a spread change where the embeds lie, and so the distances.
    shift = EmbedStatistics(torch.ones(2, 3), torch.full((2, 3), 2.0), torch.zeros(2, 3).bool())
    seen.head.statistics = lambda: shift
    assert embed_distances(seen)["euclidean"].value > 2
    # Handed over in parts, they are the same.
    seen = examination(listener(0, 1, 2, 3, 0), SAID)
    monkeypatch.setattr("align.evaluation.evaluator.METRIC_CHUNK_SIZE", 12)
    assert embed_distances(seen) == found


def test_only_what_a_judge_knows_is_drawn() -> None:
    from soundprompt.mini.image_classifier import load_image_classifier

    known = ("dog", "dog + rain", "cat", "dog + rain + rooster", "dog then rain")
    assert [load_image_classifier().supports(label) for label in known] == [
        True,
        True,
        False,
        False,
        False,
    ]
