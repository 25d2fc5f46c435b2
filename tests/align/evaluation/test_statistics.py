"""Similarity and confidence intervals against values computed by hand."""

import pytest
import torch

from align.evaluation.statistics import (
    MAIN_METRICS,
    Estimate,
    centered_cosine,
    format_summary,
    nearest,
)


@pytest.mark.parametrize(
    ("correct", "low", "high"),
    # 95% Wilson score intervals from tables.
    [(5, 0.2366, 0.7634), (8, 0.4902, 0.9433), (0, 0.0, 0.2775), (10, 0.7225, 1.0)],
)
def test_proportion_has_the_wilson_interval(correct: int, low: float, high: float) -> None:
    found = Estimate.proportion([True] * correct + [False] * (10 - correct))
    assert found.value == correct / 10
    assert found.n == 10
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)
    assert found.low <= found.value <= found.high


def test_proportion_without_cases_raises() -> None:
    with pytest.raises(ValueError, match="at least one case"):
        Estimate.proportion([])


def test_mean_has_the_normal_interval() -> None:
    found = Estimate.mean(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    # The standard deviation is sqrt(5/3), the standard error half of it.
    half = 1.959964 * (5 / 3) ** 0.5 / 2
    assert (found.value, found.n) == (2.5, 4)
    assert found.low == pytest.approx(2.5 - half)
    assert found.high == pytest.approx(2.5 + half)


def test_mean_of_one_case_has_no_interval() -> None:
    assert Estimate.mean(torch.tensor([3.0])) == Estimate(3.0, 3.0, 3.0, 1)


def test_centered_cosine_uses_whole_sequences() -> None:
    ours = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 0.0]]])
    theirs = torch.tensor([[[1.0, 0.0], [0.0, -1.0]], [[2.0, 0.0], [2.0, 0.0]]])
    # Averaged over positions, the first row would be 0 as well, but the second 1/2.
    torch.testing.assert_close(centered_cosine(ours, theirs), torch.tensor([0.0, 0.5**0.5]))


def test_nearest_uses_angles_not_distances() -> None:
    candidates = torch.tensor([[[10.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]])
    predicted = torch.tensor([[[0.5, 0.1]], [[0.1, 9.0]], [[-4.0, 0.5]]])
    assert nearest(predicted, candidates).tolist() == [0, 1, 2]


def test_mean_interval_is_clipped_to_bounds() -> None:
    values = torch.tensor([1.0, 0.5])
    assert Estimate.mean(values).high > 1
    found = Estimate.mean(values, -1, 1)
    assert (found.value, found.high) == (0.75, 1.0)
    assert Estimate.mean(-values, -1, 1).low == -1.0


def test_summary_starts_with_a_sentence_and_lists_main_metrics_only() -> None:
    found = {
        "euclidean": Estimate(3.0, 2.0, 4.0, 60),
        "class_accuracy": Estimate.proportion([True] * 9 + [False]),
        "image_accuracy_text": Estimate.proportion([True] * 60),
        "image_accuracy": Estimate.proportion([True] * 57 + [False] * 3),
    }
    first, _, head, *rows = format_summary(found).splitlines()
    assert first == (
        "57 of 60 generated images show the right class; from the true captions 60 of 60."
    )
    assert "95% interval" in head
    assert [row.split()[0] for row in rows] == [
        "image_accuracy", "image_accuracy_text", "class_accuracy",
    ]  # fmt: skip
    assert all(MAIN_METRICS[row.split()[0]] in row for row in rows)
    only_classes = format_summary({"class_accuracy": found["class_accuracy"]})
    assert only_classes.startswith("9 of 10 clips are assigned to the right class.\n")
    assert format_summary({"euclidean": found["euclidean"]}) == ""
