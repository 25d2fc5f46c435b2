"""Measures and intervals against values done by hand."""

import pytest
import torch

from align.evaluation.statistics import Estimate, centered_cosine, nearest


@pytest.mark.parametrize(
    ("right", "low", "high"),
    # Wilson's score interval, 95%, as tables give it.
    [(5, 0.2366, 0.7634), (8, 0.4902, 0.9433), (0, 0.0, 0.2775), (10, 0.7225, 1.0)],
)
def test_a_share_has_wilsons_interval(right: int, low: float, high: float) -> None:
    found = Estimate.proportion([True] * right + [False] * (10 - right))
    assert found.value == right / 10
    assert found.n == 10
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)
    assert found.low <= found.value <= found.high


def test_a_share_of_no_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="no cases"):
        Estimate.proportion([])


def test_a_mean_has_the_normal_interval() -> None:
    found = Estimate.mean(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    # The standard deviation is sqrt(5/3), its error half of it.
    half = 1.959964 * (5 / 3) ** 0.5 / 2
    assert (found.value, found.n) == (2.5, 4)
    assert found.low == pytest.approx(2.5 - half)
    assert found.high == pytest.approx(2.5 + half)


def test_the_mean_of_one_case_has_no_width() -> None:
    assert Estimate.mean(torch.tensor([3.0])) == Estimate(3.0, 3.0, 3.0, 1)


def test_centred_cosine_is_of_whole_sequences() -> None:
    ours = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 0.0]]])
    theirs = torch.tensor([[[1.0, 0.0], [0.0, -1.0]], [[2.0, 0.0], [2.0, 0.0]]])
    # Position by position the first row would be the mean of 1 and -1 too, the second 1/2.
    torch.testing.assert_close(centered_cosine(ours, theirs), torch.tensor([0.0, 0.5**0.5]))


def test_nearest_is_by_angle_not_by_distance() -> None:
    candidates = torch.tensor([[[10.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]])
    asked = torch.tensor([[[0.5, 0.1]], [[0.1, 9.0]], [[-4.0, 0.5]]])
    assert nearest(asked, candidates).tolist() == [0, 1, 2]


def test_an_interval_ends_where_the_figure_does() -> None:
    values = torch.tensor([1.0, 0.5])
    assert Estimate.mean(values).high > 1
    found = Estimate.mean(values, -1, 1)
    assert (found.value, found.high) == (0.75, 1.0)
    assert Estimate.mean(-values, -1, 1).low == -1.0
