"""Adapters, each alone: shapes, masks, gradients, sizes."""

import pytest
import torch
from torch import nn

from align.adapters import ADAPTERS, new_adapter, sizes_of
from align.adapters.hierarchical import LEVELS
from align.adapters.positions import Positions, heard_first, mean_heard, pool_slots

SHAPE = {"token_width": 12, "length": 6, "embed_width": 12, "pooled_width": 4}
SMALL = {
    "width": 16,
    "depth": 2,
    "heads": 2,
    "tokens": 3,
    "scales": 2,
    "kernel": 3,
    "head_width": 4,
}
KINDS = sorted(ADAPTERS)
POOLED = sorted(set(ADAPTERS) - {"direct"})  # direct gives none


def adapter(kind: str, **changes: int | float) -> nn.Module:
    torch.manual_seed(0)
    small = {name: value for name, value in SMALL.items() if name in sizes_of(kind)}
    shape = SHAPE | ({} if kind in POOLED else {"pooled_width": 0})
    return new_adapter(kind, **shape | small | changes).eval()


def heard(length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randn(2, length, 12, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, 5:] = False
    return tokens, mask


def given(answer: tuple[torch.Tensor, torch.Tensor | None]) -> list[torch.Tensor]:
    return [part for part in answer if part is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hole", [False, True])
def test_masked_tokens_change_nothing_and_others_do(kind: str, hole: bool) -> None:
    made = adapter(kind)
    tokens, mask = heard()
    if hole:
        mask[0, 2] = False
    before = given(made(tokens, mask))
    assert len(before) == 1 + (kind in POOLED)
    spoiled = torch.where(mask[..., None], tokens, torch.full_like(tokens, 1e4))
    for was, now in zip(before, given(made(spoiled, mask)), strict=True):
        assert torch.equal(was, now)
    tokens[0, 4] += 1.0
    for was, now in zip(before, given(made(tokens, mask)), strict=True):
        assert not torch.equal(was[0], now[0])
        assert torch.equal(was[1], now[1])


@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens_are_as_good_as_none(kind: str) -> None:
    made = adapter(kind)
    # As trained weights are: a fresh LayerNorm gives masked tokens zeros, a trained one does not.
    with torch.no_grad():
        for i, weight in enumerate(made.parameters()):
            noise = torch.Generator().manual_seed(i)
            weight += 0.1 * torch.randn(weight.shape, generator=noise)
    tokens, mask = heard()
    alone = given(made(tokens[:1, :5], mask[:1, :5]))
    for whole, own in zip(given(made(tokens, mask)), alone, strict=True):
        torch.testing.assert_close(whole[:1], own)
    # Nor does it matter where the unheard ones stand.
    order = [0, 5, 1, 2, 6, 3, 7, 8, 4]
    mixed = given(made(tokens[:1, order], mask[:1, order]))
    for whole, own in zip(mixed, alone, strict=True):
        torch.testing.assert_close(whole, own)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    made = adapter(kind)
    answers = given(made(*heard(5)))
    # A plain sum would be blind to what a LayerNorm's output has in common.
    noise = torch.Generator().manual_seed(4)
    sum((a * torch.randn(a.shape, generator=noise)).sum() for a in answers).backward()
    parameters = dict(made.named_parameters())
    assert len(parameters) == {"direct": 1, "linear": 5}.get(kind, len(parameters)) > 0
    without = [n for n, p in parameters.items() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 77, 512])
def test_any_number_of_tokens_fills_all_positions(kind: str, count: int) -> None:
    made = adapter(kind)
    tokens = torch.randn(2, count, 12, generator=torch.Generator().manual_seed(count))
    embeds, pooled = made(tokens, torch.ones(2, count, dtype=torch.bool))
    assert embeds.shape == (2, 6, 12)
    assert (None if pooled is None else pooled.shape) == ((2, 4) if kind in POOLED else None)
    for answer in given((embeds, pooled)):
        assert torch.isfinite(answer).all()
        assert not torch.equal(answer[0], answer[1])


@pytest.mark.parametrize("kind", POOLED)
def test_pooled_embeds_come_only_when_asked_for(kind: str) -> None:
    embeds, pooled = adapter(kind, pooled_width=0)(*heard())
    assert embeds.shape == (2, 6, 12)
    assert pooled is None


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"linear", "direct"}))
def test_positions_answer_differently_from_the_start(kind: str) -> None:
    embeds, _ = adapter(kind)(*heard())
    for left in range(6):
        for right in range(left):
            assert not torch.allclose(embeds[:, left], embeds[:, right])


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
    offset, bias = made.offset.detach(), made.leave_pooled.bias.detach()
    twice, twice_pooled = made(2 * tokens, mask)
    torch.testing.assert_close(twice - offset, 2 * (changed - offset))
    torch.testing.assert_close(twice_pooled - bias, 2 * (pooled - bias))


@pytest.mark.parametrize("kind", KINDS)
def test_every_size_changes_the_adapter(kind: str) -> None:
    plain = {name: p.shape for name, p in adapter(kind).named_parameters()}
    for name in set(sizes_of(kind)) - {"heads", "stride", "dropout"}:
        changes = {name: 2 * SMALL[name] - (name == "kernel")}
        changed = {key: p.shape for key, p in adapter(kind, **changes).named_parameters()}
        assert changed != plain, name
    tokens, mask = heard()
    for name, value in (("heads", 4), ("stride", 3)):
        if name not in sizes_of(kind):
            continue
        other = adapter(kind, **{name: value})
        if kind == "sonic":  # each head brings its own width
            assert other.blocks[0].leave.weight.shape != adapter(kind).blocks[0].leave.weight.shape
            continue
        other.load_state_dict(adapter(kind).state_dict())
        assert not torch.equal(other(tokens, mask)[0], adapter(kind)(tokens, mask)[0]), name
    if "dropout" in sizes_of(kind):
        made = adapter(kind, dropout=0.5).train()
        assert not torch.equal(made(tokens, mask)[0], made(tokens, mask)[0])
        made = adapter(kind, dropout=0.0).train()
        assert torch.equal(made(tokens, mask)[0], made(tokens, mask)[0])


def test_an_unknown_adapter_or_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'perceptron'.*resampler"):
        new_adapter("perceptron", **SHAPE)
    with pytest.raises(ValueError, match=r"resampler.*'depht'.*depth"):
        new_adapter("resampler", **SHAPE, depht=3)
    with pytest.raises(ValueError, match=r"linear.*'heads'; it has: none"):
        new_adapter("linear", **SHAPE, heads=3)
    with pytest.raises(ValueError, match=r"mlp.*'kernel'; it has: width, depth, tokens, dropout"):
        new_adapter("mlp", **SHAPE, kernel=3)


@pytest.mark.parametrize(
    ("kind", "sizes", "said"),
    [
        ("resampler", {"width": 16, "heads": 3}, "width must be a multiple of heads: 16"),
        ("hierarchical", {"heads": 3}, "256 is none of 3"),
        ("mlp", {"tokens": 0}, "tokens must be at least 1, not 0"),
        ("conv", {"dropout": 1.5}, "dropout is a share"),
        ("conv", {"kernel": 4}, "kernel must be odd, not 4"),
        ("sonic", {"kernel": 4}, "kernel must be odd, not 4"),
        ("conv", {"tokens": 7}, "7 tokens do not fit into a prompt of 6 positions"),
        ("direct", {"pooled_width": 4}, "no pooled embeds"),
        ("direct", {"pooled_width": 0, "token_width": 10}, "10 wide and the prompt 12"),
    ],
)
def test_a_size_that_cannot_be_is_refused(
    kind: str, sizes: dict[str, int | float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        new_adapter(kind, **SHAPE | sizes)


def test_sonic_blocks_are_chained() -> None:
    made = adapter("sonic", depth=3)
    tokens, mask = heard()
    before = made(tokens, mask)[0]
    for block in made.blocks[:-1]:  # in the released code all but the last are without effect
        with torch.no_grad():
            block.leave.bias += 1.0
        after = made(tokens, mask)[0]
        assert not torch.equal(before, after)
        before = after


def test_conv_leaves_audio2imgs_47_tokens_of_its_3_75_s() -> None:
    made = adapter("conv", length=77, tokens=47, kernel=3, stride=2)
    tokens, mask = torch.randn(1, 187, 12), torch.ones(1, 187, dtype=torch.bool)
    tokens = made.enter(tokens)
    for layer in made.layers:
        tokens, mask = layer(tokens, mask)
    assert tokens.shape[1] == mask.sum() == 47
    # Every one of the 47 is then a token of its own.
    torch.testing.assert_close(pool_slots(tokens, mask, 47), tokens)
    assert made.positions.mixture.shape == (77, 47)


def test_the_levels_are_reached_by_name() -> None:
    made = adapter("hierarchical")
    tokens, mask = heard()
    levels = made.levels(tokens, mask)
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        "foreground": (2, 5, 16), "background": (2, 3, 16), "ambience": (2, 2, 16),
    }  # fmt: skip
    shares = {name: round(share.item(), 4) for name, share in made.shares().items()}
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


def test_the_mean_is_of_what_was_heard() -> None:
    tokens = torch.tensor([[[1.0], [3.0], [float("inf")]]])
    mask = torch.tensor([[True, True, False]])
    assert mean_heard(tokens, mask).tolist() == [[2.0]]


def test_heard_tokens_come_first_in_their_order() -> None:
    tokens = torch.arange(5.0)[None, :, None]
    mask = torch.tensor([[False, True, True, False, True]])
    moved, left = heard_first(tokens, mask)
    assert moved.flatten().tolist() == [1, 2, 4, 0, 0]
    assert left.tolist() == [[True, True, True, False, False]]


@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 13])
def test_slots_are_torchs_adaptive_average_by_own_length(length: int) -> None:
    tokens = torch.randn(2, 13, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[0, length:] = False
    found = pool_slots(*heard_first(tokens, mask), 6)
    for row, own in ((0, length), (1, 13)):
        cut = tokens[row : row + 1, :own].transpose(1, 2)
        wanted = nn.functional.adaptive_avg_pool1d(cut, 6).transpose(1, 2)
        torch.testing.assert_close(found[row : row + 1], wanted)


def test_tokens_are_stretched_over_the_positions() -> None:
    same = Positions(6, 6, 4, 4, 0, 0.0)
    assert torch.equal(same.mixture, torch.eye(6))
    mixture = Positions(3, 9, 4, 4, 0, 0.0).mixture.detach()
    torch.testing.assert_close(mixture.sum(1), torch.ones(9))
    assert mixture.argmax(1).tolist() == sorted(mixture.argmax(1).tolist())
    assert mixture[0].tolist() == [1, 0, 0] and mixture[8].tolist() == [0, 0, 1]
