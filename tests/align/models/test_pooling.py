"""Pooling of the audio tokens of long clips."""

import torch

from align.models.encoder import pool_tokens


def masked_tokens(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randn(2, length, 12, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, 5:] = False
    return tokens, mask


def test_few_tokens_are_unchanged() -> None:
    tokens, mask = masked_tokens(9)
    pooled, left = pool_tokens(tokens, mask, 9)
    assert pooled is tokens
    assert left is mask


def test_pooling_ignores_masked_tokens() -> None:
    tokens = torch.arange(7.0)[None, :, None]
    mask = torch.tensor([[True, True, True, False, False, False, True]])
    # Seven tokens into at most three: runs of three, the last one shorter.
    pooled, left = pool_tokens(tokens, mask, 3)
    assert pooled.flatten().tolist() == [1.0, 0.0, 6.0]
    assert left.tolist() == [[True, False, True]]


def test_rows_are_pooled_by_their_own_length() -> None:
    tokens = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 10, dtype=torch.bool)
    mask[0, 4:] = False
    pooled, left = pool_tokens(tokens, mask, 5)
    assert left.sum(1).tolist() == [4, 5]
    assert torch.equal(pooled[0, :4], tokens[0, :4])
    assert torch.equal(pooled[1], pool_tokens(tokens[1:], mask[1:], 5)[0][0])
    torch.testing.assert_close(pooled[1], tokens[1].unflatten(0, (5, 2)).mean(1))


def test_pooling_respects_max_tokens() -> None:
    for length in range(1, 40):
        tokens, mask = torch.ones(1, length, 2), torch.ones(1, length, dtype=torch.bool)
        pooled, left = pool_tokens(tokens, mask, 8)
        assert min(length, 4) < pooled.shape[1] + 1 <= 9
        assert pooled.shape[:2] == left.shape
        assert left.all()
        assert (pooled == 1).all()
