"""Levels: what each block hears, and what each of the options does to them."""

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


def test_the_levels_share_ten_tokens() -> None:
    assert [range(NUM_LEVEL_TOKENS)[level_slice(level)] for level in LEVELS] == [
        range(0, 5),
        range(5, 8),
        range(8, 10),
    ]
    with pytest.raises(ValueError, match="no level 'middle'; there are: foreground"):
        level_slice("middle")


def test_what_is_in_front_can_be_put_behind() -> None:
    length = 77
    start = torch.nn.functional.one_hot(prompt_positions(length), length).float()
    phrase, nothing = torch.randn(1, length, 4), torch.randn(1, length, 4)
    front, empty = start @ phrase, start @ nothing
    moved = move_foreground_to_background(front, empty[0])
    assert torch.equal(moved[:, level_slice("foreground")], empty[:, level_slice("foreground")])
    # The phrase as a caption's background would have asked for it.
    assert torch.equal(moved[:, level_slice("background")], front[:, level_slice("background")])
    assert torch.equal(moved[:, level_slice("ambience")], front[:, level_slice("ambience")])
    for level in LEVELS:
        assert torch.equal(foreground_as_level(front, level), front[:, level_slice(level)])
    with pytest.raises(ValueError, match="no level 'middle'"):
        foreground_as_level(front, "middle")


def test_places_mean_nothing_until_they_are_learned() -> None:
    projector = LevelProjector(token_width=8, length=7, width=6, inner_width=8, heads=2)
    projector.set_space(torch.rand(6) + 0.5, torch.randn(1, 7, 6))
    tokens = torch.randn(2, NUM_LEVEL_TOKENS, 6)
    assert torch.equal(projector.project_levels(tokens), tokens)
    for weight in projector.level_projections.parameters():
        torch.nn.init.normal_(weight)
    placed = projector.project_levels(tokens)
    assert torch.equal(placed[:, level_slice("foreground")], tokens[:, level_slice("foreground")])
    for level in ("background", "ambience"):
        assert (
            not torch.isclose(placed[:, level_slice(level)], tokens[:, level_slice(level)])
            .any(-1)
            .all()
        )
    alike = tokens.clone()
    alike[:, level_slice("background")] = foreground_as_level(tokens, "background")
    placed = projector.project_levels(alike)
    assert not torch.allclose(
        placed[:, level_slice("background")], foreground_as_level(placed, "background")
    )


def test_routings_hear_what_they_say() -> None:
    hierarchy, reverse = ROUTINGS["hierarchy"], ROUTINGS["reverse"]
    assert level_indices(hierarchy["down"]) == [0, 1, 2, 3, 4]
    assert level_indices(hierarchy["mid"]) == list(range(10))
    assert level_indices(hierarchy["up"]) == [8, 9]
    assert reverse["down"] == hierarchy["up"] and reverse["up"] == hierarchy["down"]
    assert all(level_indices(levels) == list(range(10)) for levels in ROUTINGS["all"].values())


def test_swapping_a_level_leaves_the_others() -> None:
    one, other = torch.zeros(2, NUM_LEVEL_TOKENS, 3), torch.ones(1, NUM_LEVEL_TOKENS, 3)
    swapped = swap_level(one, other, "background")
    assert swapped[:, 5:8].eq(1).all() and swapped.sum() == 2 * 3 * 3
    assert not one.any(), "what was given is not changed"


def test_a_cold_temperature_sharpens_and_a_hot_one_evens_out() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0])
    hot, cold = level_weights(logits, 2.0), level_weights(logits, 0.5)
    for weights in (hot, cold):
        torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    assert cold[0] > hot[0] > 1 > hot[2] > cold[2]
    assert torch.equal(level_weights(torch.zeros(3), 0.5), torch.ones(3))


def test_annealing_goes_from_start_to_end() -> None:
    found = [annealed_temperature(share) for share in (0.0, 0.5, 1.0, 1.5)]
    assert found == pytest.approx([2.0, 1.0, 0.5, 0.5])
    assert annealed_temperature(1.0, 3.0, 1.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="temperatures are positive"):
        annealed_temperature(0.5, 2.0, 0.0)


def test_scales_reach_their_own_tokens() -> None:
    weights = token_weights(torch.tensor([1.0, 2.0, 3.0]), {"background": 0.5})
    assert weights.tolist() == [1.0] * 5 + [1.0] * 3 + [3.0] * 2
    with pytest.raises(ValueError, match="no level 'sky'"):
        token_weights(torch.ones(3), {"sky": 1.0})


def test_orthogonality_is_one_when_alike_and_zero_when_apart() -> None:
    alike = torch.randn(4, 1, 16).expand(4, NUM_LEVEL_TOKENS, 16)
    torch.testing.assert_close(orthogonality(alike), torch.tensor(1.0))
    apart = torch.zeros(1, NUM_LEVEL_TOKENS, 3)
    for i, level in enumerate(LEVELS):
        apart[:, level_slice(level), i] = 1.0
    torch.testing.assert_close(orthogonality(apart), torch.tensor(0.0))


def test_descending_orthogonality_turns_the_levels_apart() -> None:
    torch.manual_seed(0)
    tokens = (
        torch.ones(2, NUM_LEVEL_TOKENS, 8) + 0.1 * torch.randn(2, NUM_LEVEL_TOKENS, 8)
    ).requires_grad_()
    before = orthogonality(tokens).item()
    optimiser = torch.optim.SGD([tokens], 20.0)
    for _ in range(100):
        optimiser.zero_grad()
        orthogonality(tokens).backward()
        optimiser.step()
    assert before > 0.9 and orthogonality(tokens).item() < 0.1


def test_entropy_is_largest_when_every_level_is_heard() -> None:
    torch.testing.assert_close(entropy(torch.ones(3)), torch.tensor(1.0))
    assert entropy(torch.tensor([3.0, 0.0, 0.0])).item() == pytest.approx(0.0)
    assert entropy(torch.tensor([2.0, 0.5, 0.5])) < entropy(torch.tensor([1.5, 1.0, 0.5]))


def test_subtracting_the_entropy_brings_a_lost_level_back() -> None:
    logits = torch.tensor([3.0, 0.0, 0.0], requires_grad=True)
    before = level_weights(logits, 1.0).min().item()
    optimiser = torch.optim.SGD([logits], 1.0)
    for _ in range(50):
        optimiser.zero_grad()
        (-entropy(level_weights(logits, 1.0))).backward()
        optimiser.step()
    assert level_weights(logits, 1.0).min().item() > 3 * before


def test_the_norm_target_is_every_tokens_own() -> None:
    tokens = torch.zeros(2, 4, 3)
    tokens[0, :, 0], tokens[1, :, 1] = 30.0, 90.0  # a mean of 60 does not hide either
    torch.testing.assert_close(norm_error(tokens, 60.0), torch.tensor(0.25))
    assert norm_error(2 * tokens[:1], 60.0) == 0
    with pytest.raises(ValueError, match="positive, not 0"):
        norm_error(tokens, 0.0)


def test_level_tokens_start_as_prompt_positions_in_front_and_nothing_behind() -> None:
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


def test_targets_are_each_levels_own_phrase() -> None:
    projector = LevelProjector(6, 77, 4, inner_width=8, depth=1, heads=2)
    phrases = {level: torch.full((1, 77, 4), float(i)) for i, level in enumerate(LEVELS)}
    targets = projector.targets(phrases)
    assert targets[0, :, 0].tolist() == [0.0] * 5 + [1.0] * 3 + [2.0] * 2
    with pytest.raises(ValueError, match="there is none for ambience"):
        projector.targets({k: v for k, v in phrases.items() if k != "ambience"})


def test_masked_audio_tokens_are_not_heard() -> None:
    torch.manual_seed(0)
    projector = LevelProjector(6, 77, 4, inner_width=8, depth=1, heads=2)
    torch.nn.init.normal_(projector.resampler.proj_out.weight)
    tokens, embeds = torch.randn(1, 5, 6), torch.randn(1, 77, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    changed = tokens.clone()
    changed[:, 3:] += 1
    assert torch.equal(projector(tokens, mask, embeds), projector(changed, mask, embeds))
    changed[:, 0] += 1
    assert not torch.equal(projector(tokens, mask, embeds), projector(changed, mask, embeds))


def test_the_whole_recording_is_heard_as_one_more_token() -> None:
    torch.manual_seed(0)
    projector = LevelProjector(6, 77, 4, inner_width=8, depth=1, heads=2)
    torch.nn.init.normal_(projector.resampler.proj_out.weight)
    seen: list[torch.Tensor] = []
    projector.norm_tokens.register_forward_hook(lambda *step: seen.append(step[1][0]))
    tokens, embeds = torch.randn(1, 5, 6), torch.randn(1, 77, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    found = projector(tokens, mask, embeds)
    (heard,) = seen
    assert torch.equal(heard[:, :5], tokens)
    torch.testing.assert_close(heard[:, 5], tokens[:, :3].mean(1))
    torch.testing.assert_close(projector(tokens[:, :3], mask[:, :3], embeds), found)
