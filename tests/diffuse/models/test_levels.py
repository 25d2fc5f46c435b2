"""Levels: positions, routing, weights and regularization."""

from __future__ import annotations

import pytest
import torch

from diffuse.models.levels import (
    LEVELS,
    NUM_LEVEL_TOKENS,
    ROUTINGS,
    annealed_temperature,
    entropy,
    foreground_as_level,
    level_indices,
    level_slice,
    level_weights,
    move_foreground_to_background,
    norm_error,
    orthogonality,
    swap_level,
    token_weights,
)
from diffuse.models.projector import LevelProjector, prompt_positions


def test_level_slice_partitions_ten_tokens() -> None:
    assert [range(NUM_LEVEL_TOKENS)[level_slice(level)] for level in LEVELS] == [
        range(0, 5),
        range(5, 8),
        range(8, 10),
    ]
    with pytest.raises(ValueError, match="no level 'middle'; the levels are: foreground"):
        level_slice("middle")


def test_move_foreground_to_background() -> None:
    length = 77
    start = torch.nn.functional.one_hot(prompt_positions(length), length).float()
    phrase, null = torch.randn(1, length, 4), torch.randn(1, length, 4)
    tokens, null_tokens = start @ phrase, start @ null
    moved = move_foreground_to_background(tokens, null_tokens[0])
    assert torch.equal(
        moved[:, level_slice("foreground")], null_tokens[:, level_slice("foreground")]
    )
    # Equal to the target of the same phrase as background.
    assert torch.equal(moved[:, level_slice("background")], tokens[:, level_slice("background")])
    assert torch.equal(moved[:, level_slice("ambience")], tokens[:, level_slice("ambience")])
    for level in LEVELS:
        assert torch.equal(foreground_as_level(tokens, level), tokens[:, level_slice(level)])
    with pytest.raises(ValueError, match="no level 'middle'"):
        foreground_as_level(tokens, "middle")


def test_project_levels_is_initially_the_identity() -> None:
    projector = LevelProjector(token_width=8, length=7, width=6, inner_width=8, heads=2)
    projector.set_space(torch.rand(6) + 0.5, torch.randn(1, 7, 6))
    tokens = torch.randn(2, NUM_LEVEL_TOKENS, 6)
    assert torch.equal(projector.project_levels(tokens), tokens)
    for weight in projector.level_projections.parameters():
        torch.nn.init.normal_(weight)
    projected = projector.project_levels(tokens)
    assert torch.equal(
        projected[:, level_slice("foreground")], tokens[:, level_slice("foreground")]
    )
    for level in ("background", "ambience"):
        assert (
            not torch.isclose(projected[:, level_slice(level)], tokens[:, level_slice(level)])
            .any(-1)
            .all()
        )
    copied = tokens.clone()
    copied[:, level_slice("background")] = foreground_as_level(tokens, "background")
    projected = projector.project_levels(copied)
    assert not torch.allclose(
        projected[:, level_slice("background")], foreground_as_level(projected, "background")
    )


def test_level_indices_of_routings() -> None:
    hierarchy, reverse = ROUTINGS["hierarchy"], ROUTINGS["reverse"]
    assert level_indices(hierarchy["down"]) == [0, 1, 2, 3, 4]
    assert level_indices(hierarchy["mid"]) == list(range(10))
    assert level_indices(hierarchy["up"]) == [8, 9]
    assert reverse["down"] == hierarchy["up"] and reverse["up"] == hierarchy["down"]
    assert all(level_indices(levels) == list(range(10)) for levels in ROUTINGS["all"].values())


def test_swap_level_keeps_the_others() -> None:
    one, other = torch.zeros(2, NUM_LEVEL_TOKENS, 3), torch.ones(1, NUM_LEVEL_TOKENS, 3)
    swapped = swap_level(one, other, "background")
    assert swapped[:, 5:8].eq(1).all() and swapped.sum() == 2 * 3 * 3
    assert not one.any(), "the input is not changed"


def test_level_weights_temperature() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0])
    hot, cold = level_weights(logits, 2.0), level_weights(logits, 0.5)
    for weights in (hot, cold):
        torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    assert cold[0] > hot[0] > 1 > hot[2] > cold[2]
    assert torch.equal(level_weights(torch.zeros(3), 0.5), torch.ones(3))


def test_annealed_temperature() -> None:
    found = [annealed_temperature(share) for share in (0.0, 0.5, 1.0, 1.5)]
    assert found == pytest.approx([2.0, 1.0, 0.5, 0.5])
    assert annealed_temperature(1.0, 3.0, 1.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="temperatures must be positive"):
        annealed_temperature(0.5, 2.0, 0.0)


def test_token_weights_scale_one_level() -> None:
    weights = token_weights(torch.tensor([1.0, 2.0, 3.0]), {"background": 0.5})
    assert weights.tolist() == [1.0] * 5 + [1.0] * 3 + [3.0] * 2
    with pytest.raises(ValueError, match="no level 'sky'"):
        token_weights(torch.ones(3), {"sky": 1.0})


def test_orthogonality_of_parallel_and_orthogonal_levels() -> None:
    parallel = torch.randn(4, 1, 16).expand(4, NUM_LEVEL_TOKENS, 16)
    torch.testing.assert_close(orthogonality(parallel), torch.tensor(1.0))
    orthogonal = torch.zeros(1, NUM_LEVEL_TOKENS, 3)
    for i, level in enumerate(LEVELS):
        orthogonal[:, level_slice(level), i] = 1.0
    torch.testing.assert_close(orthogonality(orthogonal), torch.tensor(0.0))


def test_minimizing_orthogonality_separates_levels() -> None:
    torch.manual_seed(0)
    tokens = (
        torch.ones(2, NUM_LEVEL_TOKENS, 8) + 0.1 * torch.randn(2, NUM_LEVEL_TOKENS, 8)
    ).requires_grad_()
    before = orthogonality(tokens).item()
    optimizer = torch.optim.SGD([tokens], 20.0)
    for _ in range(100):
        optimizer.zero_grad()
        orthogonality(tokens).backward()
        optimizer.step()
    assert before > 0.9 and orthogonality(tokens).item() < 0.1


def test_entropy_is_largest_for_uniform_weights() -> None:
    torch.testing.assert_close(entropy(torch.ones(3)), torch.tensor(1.0))
    assert entropy(torch.tensor([3.0, 0.0, 0.0])).item() == pytest.approx(0.0)
    assert entropy(torch.tensor([2.0, 0.5, 0.5])) < entropy(torch.tensor([1.5, 1.0, 0.5]))


def test_maximizing_entropy_restores_a_level() -> None:
    logits = torch.tensor([3.0, 0.0, 0.0], requires_grad=True)
    before = level_weights(logits, 1.0).min().item()
    optimizer = torch.optim.SGD([logits], 1.0)
    for _ in range(50):
        optimizer.zero_grad()
        (-entropy(level_weights(logits, 1.0))).backward()
        optimizer.step()
    assert level_weights(logits, 1.0).min().item() > 3 * before


def test_norm_error_is_per_token() -> None:
    tokens = torch.zeros(2, 4, 3)
    tokens[0, :, 0], tokens[1, :, 1] = 30.0, 90.0  # the mean norm of 60 must not cancel them
    torch.testing.assert_close(norm_error(tokens, 60.0), torch.tensor(0.25))
    assert norm_error(2 * tokens[:1], 60.0) == 0
    with pytest.raises(ValueError, match="positive, not 0"):
        norm_error(tokens, 0.0)


def test_projector_is_initialized_to_prompt_positions() -> None:
    positions = prompt_positions(77)
    assert positions.tolist() == [0, 5, 19, 43, 76, 0, 19, 76, 0, 76]
    torch.manual_seed(0)
    projector = LevelProjector(6, 77, 4, inner_width=8, depth=1, heads=2)
    tokens, mask, embeds = torch.randn(2, 5, 6), torch.ones(2, 5).bool(), torch.randn(2, 77, 4)
    null = torch.randn(1, 77, 4)
    projector.set_space(torch.ones(4), null)
    started = projector(tokens, mask, embeds)
    assert torch.equal(started[:, :5], embeds[:, positions[:5]])
    assert torch.equal(started[:, 5:], null[:, positions[5:]].expand(2, -1, -1))
    with pytest.raises(ValueError, match="belongs to another encoder or base"):
        projector(tokens, mask, embeds[:, :10])


def test_targets_use_each_levels_phrase() -> None:
    projector = LevelProjector(6, 77, 4, inner_width=8, depth=1, heads=2)
    phrases = {level: torch.full((1, 77, 4), float(i)) for i, level in enumerate(LEVELS)}
    targets = projector.targets(phrases)
    assert targets[0, :, 0].tolist() == [0.0] * 5 + [1.0] * 3 + [2.0] * 2
    with pytest.raises(ValueError, match="there is none for ambience"):
        projector.targets({k: v for k, v in phrases.items() if k != "ambience"})


def test_projector_ignores_masked_tokens() -> None:
    torch.manual_seed(0)
    projector = LevelProjector(6, 77, 4, inner_width=8, depth=1, heads=2)
    torch.nn.init.normal_(projector.resampler.proj_out.weight)
    tokens, embeds = torch.randn(1, 5, 6), torch.randn(1, 77, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    changed = tokens.clone()
    changed[:, 3:, 0] += 1
    assert torch.equal(projector(tokens, mask, embeds), projector(changed, mask, embeds))
    changed[:, 0, 0] += 1
    assert not torch.equal(projector(tokens, mask, embeds), projector(changed, mask, embeds))


def test_projector_appends_mean_token() -> None:
    torch.manual_seed(0)
    projector = LevelProjector(6, 77, 4, inner_width=8, depth=1, heads=2)
    torch.nn.init.normal_(projector.resampler.proj_out.weight)
    seen: list[torch.Tensor] = []
    projector.norm_tokens.register_forward_hook(lambda *step: seen.append(step[1][0]))
    tokens, embeds = torch.randn(1, 5, 6), torch.randn(1, 77, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    found = projector(tokens, mask, embeds)
    (inputs,) = seen
    assert torch.equal(inputs[:, :5], tokens)
    torch.testing.assert_close(inputs[:, 5], tokens[:, :3].mean(1))
    torch.testing.assert_close(projector(tokens[:, :3], mask[:, :3], embeds), found)
