"""What one adapter promises and the others do not."""

import pytest
import torch

from align.models.adapters.hierarchical import LEVELS
from align.models.adapters.layers import pool_to_length
from tests.align.models.adapters.test_adapters import adapter, heard


def test_linear_positions_hear_differently_once_their_gains_do() -> None:
    made = adapter("linear")
    tokens, mask = heard()
    embeds, _ = made(tokens, mask)
    assert torch.equal(embeds[:, 0], embeds[:, 1])  # art-from-audio's repetition
    with torch.no_grad():
        made.gain[1] = 2.0
        made.offset[2] = 1.0
    changed, pooled = made(tokens, mask)
    torch.testing.assert_close(changed[:, 1], 2 * embeds[:, 1])
    torch.testing.assert_close(changed[:, 2], 1 + embeds[:, 2])
    # It is linear in the tokens: twice the sound, twice the answer.
    offset, bias = made.offset.detach(), made.proj_pooled.bias.detach()
    twice, twice_pooled = made(2 * tokens, mask)
    torch.testing.assert_close(twice - offset, 2 * (changed - offset))
    torch.testing.assert_close(twice_pooled - bias, 2 * (pooled - bias))


def test_sonic_blocks_are_chained() -> None:
    made = adapter("sonic", depth=3)
    tokens, mask = heard()
    before = made(tokens, mask)[0]
    for block in made.blocks[:-1]:  # in the released code all but the last are without effect
        with torch.no_grad():
            block.proj_out.bias += 1.0
        after = made(tokens, mask)[0]
        assert not torch.equal(before, after)
        before = after


def test_conv_leaves_audio2imgs_47_tokens_of_its_3_75_s() -> None:
    made = adapter("conv", length=77, tokens=47, kernel=3, stride=2)
    tokens, mask = torch.randn(1, 187, 12), torch.ones(1, 187, dtype=torch.bool)
    tokens = made.proj_in(tokens)
    for layer in made.layers:
        tokens, mask = layer(tokens, mask)
    assert tokens.shape[1] == mask.sum() == 47
    # Every one of the 47 is then a token of its own.
    torch.testing.assert_close(pool_to_length(tokens, mask, 47), tokens)
    assert made.position_mixer.mixture.shape == (77, 47)


def test_the_levels_are_reached_by_name() -> None:
    made = adapter("hierarchical")
    tokens, mask = heard()
    levels = made.levels(tokens, mask)
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        "foreground": (2, 5, 16), "background": (2, 3, 16), "ambience": (2, 2, 16),
    }  # fmt: skip
    shares = {
        name: round(share.item(), 4) for name, share in made.normalized_level_weights().items()
    }
    assert shares == {"foreground": 0.5, "background": 0.3, "ambience": 0.2}


@pytest.mark.parametrize("level", list(LEVELS))
def test_a_levels_weight_decides_how_much_it_is_heard(level: str) -> None:
    made = adapter("hierarchical")
    tokens, mask = heard()
    other = torch.randn(LEVELS[level], 16, generator=torch.Generator().manual_seed(5))

    def moved() -> float:
        before = made(tokens, mask)[0]
        with torch.no_grad():
            made.queries[level] += other
            after = made(tokens, mask)[0]
            made.queries[level] -= other
        return (after - before).norm().item()

    place = list(LEVELS).index(level)
    effects = []
    for weight in (-20.0, -2.0, 2.0):
        with torch.no_grad():
            made.level_weights[place] = weight
        effects.append(moved())
    assert effects[0] < 1e-3 < effects[1] < effects[2]
