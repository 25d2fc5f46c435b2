"""Properties of individual adapter types."""

import pytest
import torch

from align.models.adapters.hierarchical import LEVELS
from align.models.adapters.layers import pool_to_length
from tests.align.models.adapters.test_adapters import adapter, masked_tokens


def test_linear_positions_differ_by_gain_and_offset() -> None:
    made = adapter("linear")
    tokens, mask = masked_tokens()
    embeds, _ = made(tokens, mask)
    assert torch.equal(embeds[:, 0], embeds[:, 1])  # art-from-audio's repetition
    with torch.no_grad():
        made.gain[1] = 2.0
        made.offset[2] = 1.0
    changed, pooled = made(tokens, mask)
    torch.testing.assert_close(changed[:, 1], 2 * embeds[:, 1])
    torch.testing.assert_close(changed[:, 2], 1 + embeds[:, 2])
    # It is linear in the tokens: twice the tokens, twice the output.
    offset, bias = made.offset.detach(), made.proj_pooled.bias.detach()
    twice, twice_pooled = made(2 * tokens, mask)
    torch.testing.assert_close(twice - offset, 2 * (changed - offset))
    torch.testing.assert_close(twice_pooled - bias, 2 * (pooled - bias))


def test_sonic_blocks_are_chained() -> None:
    made = adapter("sonic", depth=3)
    tokens, mask = masked_tokens()
    before = made(tokens, mask)[0]
    for block in made.blocks[:-1]:  # in the released code, only the last has an effect
        with torch.no_grad():
            block.proj_out.bias += 1.0
        after = made(tokens, mask)[0]
        assert not torch.equal(before, after)
        before = after


def test_conv_has_47_tokens_for_3_75_s_as_audio2img() -> None:
    made = adapter("conv", length=77, tokens=47, kernel=3, stride=2)
    tokens, mask = torch.randn(1, 187, 12), torch.ones(1, 187, dtype=torch.bool)
    tokens = made.proj_in(tokens)
    for layer in made.layers:
        tokens, mask = layer(tokens, mask)
    assert tokens.shape[1] == mask.sum() == 47
    # Pooling to 47 tokens is then the identity.
    torch.testing.assert_close(pool_to_length(tokens, mask, 47), tokens)
    assert made.position_mixer.mixture.shape == (77, 47)


def test_hierarchical_levels_by_name() -> None:
    made = adapter("hierarchical")
    tokens, mask = masked_tokens()
    levels = made.levels(tokens, mask)
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        "foreground": (2, 5, 16), "background": (2, 3, 16), "ambience": (2, 2, 16),
    }  # fmt: skip
    shares = {
        name: round(share.item(), 4) for name, share in made.normalized_level_weights().items()
    }
    assert shares == {"foreground": 0.5, "background": 0.3, "ambience": 0.2}


@pytest.mark.parametrize("level", list(LEVELS))
def test_hierarchical_level_weight_scales_its_effect(level: str) -> None:
    made = adapter("hierarchical")
    tokens, mask = masked_tokens()
    other = torch.randn(LEVELS[level], 16, generator=torch.Generator().manual_seed(5))

    def effect() -> float:
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
        effects.append(effect())
    assert effects[0] < 1e-3 < effects[1] < effects[2]
