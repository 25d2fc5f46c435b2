"""Adapters in isolation: shapes, masks, gradients and options."""

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
POOLED = sorted(set(ADAPTERS) - {"direct"})  # adapters with pooled embeds


def adapter(kind: str, **changes: int | float) -> nn.Module:
    torch.manual_seed(0)
    small = {name: value for name, value in SMALL.items() if name in default_adapter_kwargs(kind)}
    shape = SHAPE | ({} if kind in POOLED else {"pooled_width": 0})
    return build_adapter(kind, **shape | small | changes).eval()


def masked_tokens(length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randn(2, length, 12, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[0, 5:] = False
    return tokens, mask


def outputs(found: tuple[torch.Tensor, torch.Tensor | None]) -> list[torch.Tensor]:
    return [part for part in found if part is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hole", [False, True])
def test_masked_tokens_have_no_effect(kind: str, hole: bool) -> None:
    made = adapter(kind)
    tokens, mask = masked_tokens()
    if hole:
        mask[0, 2] = False
    before = outputs(made(tokens, mask))
    assert len(before) == 1 + (kind in POOLED)
    spoiled = torch.where(mask[..., None], tokens, torch.full_like(tokens, 1e4))
    for was, now in zip(before, outputs(made(spoiled, mask)), strict=True):
        assert torch.equal(was, now)
    tokens[0, 4, 0] += 1.0  # in one dimension: LayerNorm removes a uniform shift
    for was, now in zip(before, outputs(made(tokens, mask)), strict=True):
        assert not torch.equal(was[0], now[0])
        assert torch.equal(was[1], now[1])


@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens_equal_absent_ones(kind: str) -> None:
    made = adapter(kind)
    # Perturb the weights: an untrained LayerNorm maps masked tokens to zeros, a trained one not.
    with torch.no_grad():
        for i, weight in enumerate(made.parameters()):
            noise = torch.Generator().manual_seed(i)
            weight += 0.1 * torch.randn(weight.shape, generator=noise)
    tokens, mask = masked_tokens()
    alone = outputs(made(tokens[:1, :5], mask[:1, :5]))
    for whole, own in zip(outputs(made(tokens, mask)), alone, strict=True):
        torch.testing.assert_close(whole[:1], own)
    # The order of masked tokens does not matter either.
    order = [0, 5, 1, 2, 6, 3, 7, 8, 4]
    mixed = outputs(made(tokens[:1, order], mask[:1, order]))
    for whole, own in zip(mixed, alone, strict=True):
        torch.testing.assert_close(whole, own)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient(kind: str) -> None:
    made = adapter(kind)
    found = outputs(made(*masked_tokens(5)))
    # The sum of a LayerNorm's output is constant, so weight it randomly.
    noise = torch.Generator().manual_seed(4)
    sum((a * torch.randn(a.shape, generator=noise)).sum() for a in found).backward()
    parameters = dict(made.named_parameters())
    assert len(parameters) == {"direct": 1, "linear": 5}.get(kind, len(parameters)) > 0
    without = [n for n, p in parameters.items() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 77, 512])
def test_output_shape_for_any_number_of_tokens(kind: str, count: int) -> None:
    made = adapter(kind)
    tokens = torch.randn(2, count, 12, generator=torch.Generator().manual_seed(count))
    embeds, pooled = made(tokens, torch.ones(2, count, dtype=torch.bool))
    assert embeds.shape == (2, 6, 12)
    assert (None if pooled is None else pooled.shape) == ((2, 4) if kind in POOLED else None)
    for found in outputs((embeds, pooled)):
        assert torch.isfinite(found).all()
        assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("kind", POOLED)
def test_no_pooled_embeds_with_zero_width(kind: str) -> None:
    embeds, pooled = adapter(kind, pooled_width=0)(*masked_tokens())
    assert embeds.shape == (2, 6, 12)
    assert pooled is None


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"linear", "direct"}))
def test_positions_differ_before_training(kind: str) -> None:
    embeds, _ = adapter(kind)(*masked_tokens())
    for left in range(6):
        for right in range(left):
            assert not torch.allclose(embeds[:, left], embeds[:, right])


@pytest.mark.parametrize("kind", KINDS)
def test_options_change_the_adapter(kind: str) -> None:
    plain = {name: p.shape for name, p in adapter(kind).named_parameters()}
    for name in set(default_adapter_kwargs(kind)) - {"heads", "stride", "dropout"}:
        changes = {name: 2 * SMALL[name] - (name == "kernel")}
        changed = {key: p.shape for key, p in adapter(kind, **changes).named_parameters()}
        assert changed != plain, name
    tokens, mask = masked_tokens()
    for name, value in (("heads", 4), ("stride", 3)):
        if name not in default_adapter_kwargs(kind):
            continue
        other = adapter(kind, **{name: value})
        if kind == "sonic":  # the width is per head
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


def test_unknown_adapter_or_option_raises() -> None:
    with pytest.raises(ValueError, match=r"'perceptron'.*resampler"):
        build_adapter("perceptron", **SHAPE)
    with pytest.raises(ValueError, match=r"resampler.*'depht'.*depth"):
        build_adapter("resampler", **SHAPE, depht=3)
    with pytest.raises(ValueError, match=r"linear.*'heads'; it has: none"):
        build_adapter("linear", **SHAPE, heads=3)
    with pytest.raises(ValueError, match=r"mlp.*'kernel'; it has: width, depth, tokens, dropout"):
        build_adapter("mlp", **SHAPE, kernel=3)


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        ("resampler", {"width": 16, "heads": 3}, "width must be a multiple of heads: 16"),
        ("hierarchical", {"heads": 3}, "256 is not divisible by 3"),
        ("mlp", {"tokens": 0}, "tokens must be at least 1, not 0"),
        ("conv", {"dropout": 1.5}, "dropout must be from 0 to below 1, not 1.5"),
        ("conv", {"kernel": 4}, "kernel must be odd, not 4"),
        ("sonic", {"kernel": 4}, "kernel must be odd, not 4"),
        ("conv", {"tokens": 7}, "7 tokens do not fit into a prompt of 6 positions"),
        ("direct", {"pooled_width": 4}, "no pooled embeds"),
        ("direct", {"pooled_width": 0, "token_width": 10}, "width is 10 but the prompt's is 12"),
    ],
)
def test_invalid_option_raises(kind: str, sizes: dict[str, int | float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_adapter(kind, **SHAPE | sizes)
