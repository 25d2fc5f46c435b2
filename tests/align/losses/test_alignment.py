"""Sigmoid and margin losses, weights and soft positives against values by hand; memory use."""

from collections.abc import Callable
from math import e, exp, log
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from align.losses import functional as losses
from align.losses.alignment import padded_position_weights
from align.losses.functional import (
    same_group,
    sequence_info_nce,
    sequence_margin,
    sequence_mse,
    sequence_sigmoid,
    soft_positives,
)

ONE, OTHER = [1.0, 0.0], [0.0, 1.0]
CONTRASTS = [sequence_info_nce, sequence_sigmoid, sequence_margin]
Loss = Callable[..., torch.Tensor]


def sequences(rows: int = 5, length: int = 7, width: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(rows, length, width, generator=generator) for _ in range(2)]


def alone(rows: int) -> torch.Tensor:
    return same_group(torch.arange(rows))


def test_sigmoid_loss_by_hand() -> None:
    predicted, target = torch.tensor([[ONE], [OTHER]]), torch.tensor([[ONE], [ONE]])
    # z = cosine / 0.5 - 1 is 1 for the first row's pairs and -1 for the second's.
    correct, wrong = log(1 + exp(-1)), log(1 + e)
    loss = sequence_sigmoid(predicted, target, alone(2), temperature=0.5, bias=-1.0)
    assert loss.item() == pytest.approx(((correct + wrong) + (correct + wrong)) / 2)
    loss = sequence_sigmoid(predicted, target, torch.ones(2, 2), temperature=0.5, bias=-1.0)
    assert loss.item() == pytest.approx((2 * correct + 2 * wrong) / 2)


def test_sigmoid_loss_matches_siglip_at_every_position() -> None:
    predicted, target = sequences()
    cosines = torch.cosine_similarity(predicted[:, None], target[None], dim=-1)
    labels = 2 * torch.eye(5)[..., None] - 1
    wanted = -F.logsigmoid(labels * (cosines / 0.1 - 4)).sum() / 5 / 7
    found = sequence_sigmoid(predicted, target, alone(5), 0.1, -4.0)
    torch.testing.assert_close(found, wanted)


def test_margin_loss_by_hand() -> None:
    predicted, target = torch.tensor([[ONE], [ONE]]), torch.tensor([[ONE], [[0.6, 0.8]]])
    # Cosines are 1 and 0.6 in both rows.
    loss = sequence_margin(predicted, target, alone(2), margin=0.2)
    assert loss.item() == pytest.approx(((0 + 0.4) + (0.4 + 0.8)) / 2)
    assert sequence_margin(predicted, target, torch.ones(2, 2)).item() == pytest.approx(0.2)


def test_margin_loss_matches_torch_cosine_embedding_loss() -> None:
    predicted, target = (x[:, :1] for x in sequences())
    pairs = [(i, j) for i in range(5) for j in range(5)]
    one, other = (
        torch.stack([x[index, 0] for index in column])
        for x, column in zip((predicted, target), zip(*pairs, strict=True), strict=True)
    )
    signs = torch.tensor([1 if i == j else -1 for i, j in pairs])
    each = F.cosine_embedding_loss(one, other, signs, margin=0.1, reduction="none")
    wanted = each[signs > 0].mean() + each[signs < 0].mean()
    torch.testing.assert_close(sequence_margin(predicted, target, alone(5), 0.1), wanted)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_position_weight_equals_repetition(contrast: Loss) -> None:
    predicted, target = sequences()
    repeated = [torch.cat([x, x[:, 2:3], x[:, 2:3]], 1) for x in (predicted, target)]
    weights = torch.ones(5, 7)
    weights[:, 2] = 3
    even = contrast(predicted, target, alone(5))
    for scale in (1, 10):  # only their ratios matter
        found = contrast(predicted, target, alone(5), weights=scale * weights)
        torch.testing.assert_close(found, contrast(*repeated, alone(5)))
        assert abs(found - even) > 1e-4


@pytest.mark.parametrize("contrast", [*CONTRASTS, sequence_mse])
def test_position_weights_apply_per_row(contrast: Loss) -> None:
    predicted, target = sequences()
    more = () if contrast is sequence_mse else (alone(5),)
    weights = torch.ones(5, 7)
    torch.testing.assert_close(
        contrast(predicted, target, *more, weights=weights), contrast(predicted, target, *more)
    )
    weights[1, 4:] = 0.1
    found = contrast(predicted, target, *more, weights=weights)
    assert abs(found - contrast(predicted, target, *more)) > 1e-4


def test_weighted_mse_by_hand() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    target = torch.tensor([[[0.0, 2.0], [3.0, 1.0]]])
    found = sequence_mse(predicted, target, torch.tensor([[1.0, 0.5]]))
    assert found.item() == pytest.approx((1 * 0.5 + 0.5 * 5.0) / 1.5)


def test_padding_has_lower_weight_but_nonzero_gradient() -> None:
    counts = padded_position_weights(torch.tensor([2, 4]), 5, 0.25)
    wanted = [[1, 1, 0.25, 0.25, 0.25], [1, 1, 1, 1, 0.25]]
    assert counts.tolist() == wanted
    predicted, target = (x[:2, :5].requires_grad_() for x in sequences())
    for contrast in CONTRASTS:
        loss = contrast(predicted, target, alone(2), weights=counts)
        (gradient,) = torch.autograd.grad(loss, predicted)
        assert (gradient.abs().amax(-1) > 0).all()


def test_soft_positives_rise_above_the_threshold() -> None:
    # Whole sequences with cosines 1, 0.8 and 0.
    target = torch.tensor([[ONE, ONE], [ONE, ONE], [[0.8, 0.6], [0.8, 0.6]], [[0.0, -1.0]] * 2])
    found = soft_positives(alone(4), target, 0.6)
    wanted = torch.eye(4)
    wanted[0, 1] = wanted[1, 0] = 1  # identical captions in another group
    wanted[:2, 2] = wanted[2, :2] = (0.8 - 0.6) / (1 - 0.6)
    torch.testing.assert_close(found, wanted)
    assert torch.equal(soft_positives(alone(4), target, 1.0), torch.eye(4))
    groups = same_group(torch.tensor([0, 1, 2, 0]))
    assert soft_positives(groups, target, 0.6)[0, 3] == 1


def test_soft_positives_share_the_probability() -> None:
    embeds = torch.tensor([[ONE], [OTHER]])
    agreement = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    # Each row's target probability is 2/3 for itself and 1/3 for the other.
    wanted = log(e + 1) - 2 / 3
    assert sequence_info_nce(embeds, embeds, agreement, 1.0).item() == pytest.approx(wanted)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_checkpointed_positions_have_the_same_loss(
    contrast: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) + 0.1

    def found() -> list[torch.Tensor]:
        pair = [x.double().requires_grad_() for x in sequences()]
        scale = torch.tensor(0.3, requires_grad=True)
        more = {} if contrast is sequence_margin else {"temperature": scale}
        loss = contrast(*pair, alone(5), weights=weights, **more)
        leaves = [*pair, *more.values()]
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    whole = found()
    monkeypatch.setattr(losses, "MAX_COSINES", 2 * 25)  # two positions at a time
    chunked = found()
    assert len(whole) >= 3 and all(x.abs().max() > 0 for x in whole)
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


def saved_bytes(call: Callable[[], Any]) -> int:
    """Bytes that a forward pass saves for its backward pass, counting each storage once."""
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        assert call().requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_no_pair_of_whole_sequences_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, length, width = 64, 4, 256
    pair = [x.requires_grad_() for x in sequences(rows, length, width)]

    def plain() -> torch.Tensor:
        similarity = torch.cosine_similarity(pair[0][:, None], pair[1][None], dim=-1)
        labels = torch.arange(rows)[:, None].repeat(1, length)
        return F.cross_entropy(similarity / 0.15, labels)

    def ours() -> torch.Tensor:
        return sequence_info_nce(*pair, alone(rows), direction="audio_to_text")

    torch.testing.assert_close(plain(), ours())
    assert saved_bytes(plain) >= 2 * (4 * rows * rows * length * width)  # two (B, B, L, D)
    whole = saved_bytes(ours)
    assert 0 < 20 * whole < saved_bytes(plain)
    monkeypatch.setattr(losses, "MAX_COSINES", rows * rows)
    chunked = saved_bytes(ours)
    assert 0 < chunked < whole / 2
