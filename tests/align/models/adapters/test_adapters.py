"""Adapters, each alone: shapes, masks, gradients, sizes."""

import pytest
import torch
from torch import nn

from align.models.adapters import ADAPTERS, build_adapter, default_adapter_kwargs

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
    small = {name: value for name, value in SMALL.items() if name in default_adapter_kwargs(kind)}
    shape = SHAPE | ({} if kind in POOLED else {"pooled_width": 0})
    return build_adapter(kind, **shape | small | changes).eval()


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


@pytest.mark.parametrize("kind", KINDS)
def test_every_size_changes_the_adapter(kind: str) -> None:
    plain = {name: p.shape for name, p in adapter(kind).named_parameters()}
    for name in set(default_adapter_kwargs(kind)) - {"heads", "stride", "dropout"}:
        changes = {name: 2 * SMALL[name] - (name == "kernel")}
        changed = {key: p.shape for key, p in adapter(kind, **changes).named_parameters()}
        assert changed != plain, name
    tokens, mask = heard()
    for name, value in (("heads", 4), ("stride", 3)):
        if name not in default_adapter_kwargs(kind):
            continue
        other = adapter(kind, **{name: value})
        if kind == "sonic":  # each head brings its own width
            assert (
                other.blocks[0].proj_out.weight.shape
                != adapter(kind).blocks[0].proj_out.weight.shape
            )
            continue
        other.load_state_dict(adapter(kind).state_dict())
        assert not torch.equal(other(tokens, mask)[0], adapter(kind)(tokens, mask)[0]), name
    if "dropout" in default_adapter_kwargs(kind):
        made = adapter(kind, dropout=0.5).train()
        assert not torch.equal(made(tokens, mask)[0], made(tokens, mask)[0])
        made = adapter(kind, dropout=0.0).train()
        assert torch.equal(made(tokens, mask)[0], made(tokens, mask)[0])


def test_an_unknown_adapter_or_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'perceptron'.*resampler"):
        build_adapter("perceptron", **SHAPE)
    with pytest.raises(ValueError, match=r"resampler.*'depht'.*depth"):
        build_adapter("resampler", **SHAPE, depht=3)
    with pytest.raises(ValueError, match=r"linear.*'heads'; it has: none"):
        build_adapter("linear", **SHAPE, heads=3)
    with pytest.raises(ValueError, match=r"mlp.*'kernel'; it has: width, depth, tokens, dropout"):
        build_adapter("mlp", **SHAPE, kernel=3)


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
        build_adapter(kind, **SHAPE | sizes)
