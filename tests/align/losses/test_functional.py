"""Alignment losses against reference formulas and values computed by hand."""

from math import e, log

import pytest
import torch
from torch.nn import functional as F

from align.losses.functional import (
    positional_similarity,
    same_group,
    sequence_info_nce,
    sequence_margin,
    sequence_mse,
    sequence_sigmoid,
)

ONE, OTHER = [1.0, 0.0], [0.0, 1.0]


def plain(embeds1: torch.Tensor, embeds2: torch.Tensor, temperature: float) -> torch.Tensor:
    """The loss of audio2img in one direction, as in its README."""
    similarity = torch.cosine_similarity(embeds1.unsqueeze(1), embeds2.unsqueeze(0), dim=-1)
    labels = torch.arange(embeds1.size(0)).unsqueeze(1).repeat(1, embeds1.size(1))
    return F.cross_entropy(similarity / temperature, labels)


def sequences(rows: int = 5, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        scale * torch.randn(rows, 7, 16, generator=generator),
        scale * torch.randn(rows, 7, 16, generator=generator),
    )


def alone(rows: int) -> torch.Tensor:
    return same_group(torch.arange(rows))


@pytest.mark.parametrize("temperature", [0.15, 1.0])
@pytest.mark.parametrize("direction", ["both", "audio_to_text", "text_to_audio"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["fp64", "fp32"]
)
def test_info_nce_matches_audio2img(
    dtype: torch.dtype, tolerance: float, direction: str, temperature: float
) -> None:
    predicted, target = (x.to(dtype).requires_grad_() for x in sequences())
    loss = sequence_info_nce(predicted, target, alone(5), temperature, direction)
    found = torch.autograd.grad(loss, (predicted, target))

    exact = [x.detach().double().requires_grad_() for x in (predicted, target)]
    forth, back = plain(*exact, temperature), plain(*exact[::-1], temperature)
    assert abs(forth - back) > 1e-4  # the directions must be distinguishable
    reference = {"audio_to_text": forth, "text_to_audio": back, "both": (forth + back) / 2}
    wanted = torch.autograd.grad(reference[direction], exact)

    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(reference[direction].item(), rel=tolerance)
    for gradient, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 1e-3
        assert (gradient - other).norm() <= tolerance * other.norm()
        torch.testing.assert_close(
            gradient.double(), other, rtol=tolerance, atol=tolerance * other.abs().max().item()
        )


def test_info_nce_by_hand() -> None:
    predicted = torch.tensor([[ONE], [ONE]])
    target = torch.tensor([[ONE], [OTHER]])
    # By row: cosines (1, 0) twice, with targets 0 and 1. By column: (1, 1) and (0, 0).
    forward = (log(1 + e) - 1 + log(1 + e)) / 2
    loss = sequence_info_nce(predicted, target, alone(2), temperature=1.0)
    assert loss.item() == pytest.approx((forward + log(2)) / 2, rel=1e-6)


def test_rows_of_the_same_group_are_not_negatives() -> None:
    embeds = torch.tensor([[ONE], [ONE], [OTHER]])
    positives = same_group(torch.tensor([4, 4, 0]))
    # The two positives share the probability: log(2e + 1) - 1 each; the third: log(e + 2) - 1.
    wanted = (2 * (log(2 * e + 1) - 1) + log(e + 2) - 1) / 3
    assert sequence_info_nce(embeds, embeds, positives, 1.0).item() == pytest.approx(wanted)
    # Orthogonal captions of the same group: log(e + 1) - 1/2, higher than as negatives.
    wordings = torch.tensor([[ONE], [OTHER]])
    loss = sequence_info_nce(wordings, wordings, same_group(torch.tensor([1, 1])), 1.0)
    assert loss.item() == pytest.approx(log(e + 1) - 0.5)
    loss = sequence_info_nce(wordings, wordings, same_group(torch.tensor([1, 2])), 1.0)
    assert loss.item() == pytest.approx(log(e + 1) - 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    # Squares of 300 over 16 dimensions overflow float16.
    predicted, target = (x.to(dtype).requires_grad_() for x in sequences(scale=300.0))
    for loss in (
        sequence_info_nce(predicted, target, alone(5)),
        sequence_sigmoid(predicted, target, alone(5)),
        sequence_margin(predicted, target, alone(5)),
        sequence_mse(predicted, target),
    ):
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        (gradient,) = torch.autograd.grad(loss, predicted)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
    wide = sequence_info_nce(predicted.float(), target.float(), alone(5))
    assert torch.equal(sequence_info_nce(predicted, target, alone(5)), wide)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.float16, 6e4), (torch.float16, 1e-7), (torch.bfloat16, 3e38), (torch.bfloat16, 1e-38)],
)
def test_losses_are_finite_for_extreme_values(dtype: torch.dtype, size: float) -> None:
    signs = [x.sign() for x in sequences()]
    predicted, target = ((size * sign).to(dtype).requires_grad_() for sign in signs)
    assert predicted.isfinite().all() and predicted.abs().min() > 0
    for contrast in (sequence_info_nce, sequence_sigmoid, sequence_margin):
        loss = contrast(predicted, target, alone(5))
        assert loss.isfinite()
        assert torch.autograd.grad(loss, predicted)[0].isfinite().all()
        if size > 1:  # only the direction matters
            torch.testing.assert_close(loss, contrast(*signs, alone(5)))


def test_autocast_does_not_change_similarities() -> None:
    predicted, target = sequences()
    with torch.autocast("cpu", torch.bfloat16):
        found = positional_similarity(predicted, target)
    assert torch.equal(found, positional_similarity(predicted, target))


def test_positional_similarity_is_the_cosine() -> None:
    predicted, target = sequences()
    found = positional_similarity(predicted, target)
    wanted = torch.cosine_similarity(predicted[:, None], target[None], dim=-1)
    torch.testing.assert_close(found, wanted.permute(2, 0, 1))


def test_zero_positions_have_a_finite_loss() -> None:
    predicted, target = sequences()
    predicted[:, 0], target[:, 0] = 0.0, 0.0
    predicted.requires_grad_()
    loss = sequence_info_nce(predicted, target, alone(5))
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert not gradient[:, 0].any()
    # All pairs are equal at this position, whose loss is log B.
    rest = sequence_info_nce(predicted[:, 1:], target[:, 1:], alone(5))
    assert loss.item() == pytest.approx((6 * rest.item() + log(5)) / 7, rel=1e-5)


def test_mse_by_hand() -> None:
    predicted = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    target = torch.tensor([[[0.0, 2.0]], [[3.0, 1.0]]])
    assert sequence_mse(predicted, target).item() == (1 + 0 + 9 + 1) / 4


def test_same_group_by_hand() -> None:
    wanted = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    assert torch.equal(same_group(torch.tensor([7, 2, 7])), wanted)
