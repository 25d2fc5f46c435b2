"""Layers shared by several adapters."""

import pytest
import torch
from torch import nn

from align.models.adapters.layers import PositionMixer, compact_tokens, masked_mean, pool_to_length


def test_masked_mean_ignores_masked_tokens() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [float("inf")]]])
    mask = torch.tensor([[True, True, False]])
    assert masked_mean(tokens, mask).tolist() == [[2.0]]


def test_compact_tokens_keeps_the_order() -> None:
    tokens = torch.arange(5.0)[None, :, None]
    mask = torch.tensor([[False, True, True, False, True]])
    moved, left = compact_tokens(tokens, mask)
    assert moved.flatten().tolist() == [1, 2, 4, 0, 0]
    assert left.tolist() == [[True, True, True, False, False]]


@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 13])
def test_pool_to_length_matches_adaptive_average_pooling(length: int) -> None:
    tokens = torch.randn(2, 13, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[0, length:] = False
    found = pool_to_length(*compact_tokens(tokens, mask), 6)
    for row, own in ((0, length), (1, 13)):
        cut = tokens[row : row + 1, :own].transpose(1, 2)
        wanted = nn.functional.adaptive_avg_pool1d(cut, 6).transpose(1, 2)
        torch.testing.assert_close(found[row : row + 1], wanted)


def test_position_mixer_starts_as_interpolation() -> None:
    same = PositionMixer(6, 6, 4, 4, 0, 0.0)
    assert torch.equal(same.mixture, torch.eye(6))
    mixture = PositionMixer(3, 9, 4, 4, 0, 0.0).mixture.detach()
    torch.testing.assert_close(mixture.sum(1), torch.ones(9))
    assert mixture.argmax(1).tolist() == sorted(mixture.argmax(1).tolist())
    assert mixture[0].tolist() == [1, 0, 0] and mixture[8].tolist() == [0, 0, 1]
