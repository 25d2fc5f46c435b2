"""Adapters, and the pooling of audio tokens before them."""

import pytest
import torch
from torch import nn

from align.adapters import new_adapter
from align.pooling import pool_tokens

SIZES = {"token_width": 12, "length": 6, "embed_width": 10, "width": 16, "depth": 2, "heads": 2}


def resampler(**changes: int | float) -> nn.Module:
    torch.manual_seed(0)
    return new_adapter("resampler", **SIZES | changes).eval()


def heard(length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randn(2, length, 12, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, 5:] = False
    return tokens, mask


def test_masked_tokens_change_nothing_and_others_do() -> None:
    adapter = resampler(pooled_width=4)
    tokens, mask = heard()
    before = adapter(tokens, mask)
    tokens[0, 5:] = 1e4
    for was, now in zip(before, adapter(tokens, mask), strict=True):
        assert torch.equal(was, now)
    tokens[0, 4] += 1.0
    for was, now in zip(before, adapter(tokens, mask), strict=True):
        assert not torch.equal(was[0], now[0])
        assert torch.equal(was[1], now[1])


def test_masked_tokens_are_as_good_as_none() -> None:
    adapter = resampler()
    tokens, mask = heard()
    torch.testing.assert_close(
        adapter(tokens, mask)[0][:1], adapter(tokens[:1, :5], mask[:1, :5])[0]
    )


def test_every_parameter_gets_a_gradient() -> None:
    adapter = resampler(pooled_width=4)
    embeds, pooled = adapter(*heard())
    # A plain sum would be blind to what a LayerNorm's output has in common.
    weights = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(4))
    ((embeds * weights).sum() + pooled.square().sum()).backward()
    parameters = dict(adapter.named_parameters())
    assert len(parameters) > 20
    without = [n for n, p in parameters.items() if p.grad is None or not p.grad.any()]
    assert without == []


def test_pooled_embeds_come_when_asked_for() -> None:
    embeds, pooled = resampler()(*heard())
    assert embeds.shape == (2, 6, 10)
    assert pooled is None
    embeds, pooled = resampler(pooled_width=4)(*heard())
    assert embeds.shape == (2, 6, 10)
    assert pooled.shape == (2, 4)


def test_positions_answer_differently() -> None:
    embeds, _ = resampler()(*heard())
    assert not torch.allclose(embeds[:, 0], embeds[:, 1])


def test_an_unknown_adapter_or_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'perceptron'.*resampler"):
        new_adapter("perceptron", **SIZES)
    with pytest.raises(ValueError, match=r"resampler.*'depht'"):
        new_adapter("resampler", **SIZES, depht=3)


def test_few_tokens_are_left_alone() -> None:
    tokens, mask = heard(9)
    pooled, left = pool_tokens(tokens, mask, 9)
    assert pooled is tokens
    assert left is mask


def test_runs_of_tokens_are_averaged_without_the_masked() -> None:
    tokens = torch.arange(7.0)[None, :, None]
    mask = torch.tensor([[True, True, True, False, False, False, True]])
    # Seven into at most three: runs of three, the last one short.
    pooled, left = pool_tokens(tokens, mask, 3)
    assert pooled.flatten().tolist() == [1.0, 0.0, 6.0]
    assert left.tolist() == [[True, False, True]]


def test_a_row_is_pooled_by_its_own_length() -> None:
    tokens = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[0, 4:] = False
    pooled, left = pool_tokens(tokens, mask, 5)
    assert left.sum(1).tolist() == [4, 5]
    assert torch.equal(pooled[0, :4], tokens[0, :4])
    assert torch.equal(pooled[1], pool_tokens(tokens[1:], mask[1:], 5)[0][0])
    torch.testing.assert_close(pooled[1], tokens[1].unflatten(0, (5, 2)).mean(1))


def test_pooling_never_leaves_more_than_asked() -> None:
    for length in range(1, 40):
        tokens, mask = torch.ones(1, length, 2), torch.ones(1, length, dtype=torch.bool)
        pooled, left = pool_tokens(tokens, mask, 8)
        assert min(length, 4) < pooled.shape[1] + 1 <= 9
        assert pooled.shape[:2] == left.shape
        assert left.all()
        assert (pooled == 1).all()
