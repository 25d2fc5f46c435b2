"""Levels: the audio tokens of what is near, of what is behind it and of the air around both.

CLAP2Diffusion planned a hierarchy of foreground, background and ambience tokens, and UNet blocks
that hear one level each. Here the levels are places in one sequence of tokens, so that a block
hears a level by reading its places, and a level of another sound is put in by replacing them.
All functions are pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F

LEVELS = {"foreground": 5, "background": 3, "ambience": 2}
NUM_LEVEL_TOKENS = sum(LEVELS.values())
ALL_LEVELS = tuple(LEVELS)

# Which levels the blocks of the UNet's three parts hear.
ROUTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "all": {"down": ALL_LEVELS, "mid": ALL_LEVELS, "up": ALL_LEVELS},
    "hierarchy": {"down": ("foreground",), "mid": ALL_LEVELS, "up": ("ambience",)},
    "reverse": {"down": ("ambience",), "mid": ALL_LEVELS, "up": ("foreground",)},
}


def level_slice(level: str) -> slice:
    """Where a level's tokens stand in the sequence.

    Raises:
        ValueError: there is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"there is no level {level!r}; there are: {', '.join(LEVELS)}")
    before = list(LEVELS).index(level)
    start = sum(list(LEVELS.values())[:before])
    return slice(start, start + LEVELS[level])


def level_indices(levels: Sequence[str]) -> list[int]:
    """The places of several levels, in the sequence's order."""
    return sorted(i for level in levels for i in range(NUM_LEVEL_TOKENS)[level_slice(level)])


def swap_level(tokens: torch.Tensor, other: torch.Tensor, level: str) -> torch.Tensor:
    """Tokens (B, J, D) with one level taken from `other` (B or 1, J, D)."""
    swapped = tokens.clone()
    swapped[:, level_slice(level)] = other[:, level_slice(level)]
    return swapped


def move_foreground_to_background(tokens: torch.Tensor, null_tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (B, J, D) whose foreground has become their background.

    A level's tokens are a coarser choice of the same prompt positions than the foreground's, so
    every other one of those says the same thing there.

    Args:
        tokens: (B, J, D).
        nothing: (J, D), of a level in which there is nothing to hear: what the foreground gets.
    """
    moved = tokens.clone()
    moved[:, level_slice("background")] = foreground_as_level(tokens, "background")
    moved[:, level_slice("foreground")] = null_tokens[level_slice("foreground")]
    return moved


def foreground_as_level(tokens: torch.Tensor, level: str) -> torch.Tensor:
    """The foreground of tokens (B, J, D) as a level says it: (B, n, D), n tokens of that level.

    Raises:
        ValueError: there is no such level.
    """
    count = len(range(NUM_LEVEL_TOKENS)[level_slice(level)])
    chosen = torch.linspace(0, LEVELS["foreground"] - 1, count).round().long()
    return tokens[:, level_slice("foreground")][:, chosen]


def level_weights(logits: torch.Tensor, temperature: torch.Tensor | float) -> torch.Tensor:
    """Weights (3,) with mean one: a softmax of logits (3,), the sharper the colder."""
    return len(LEVELS) * torch.softmax(logits / temperature, 0)


def token_weights(
    weights: torch.Tensor, level_scales: Mapping[str, float] | None = None
) -> torch.Tensor:
    """The weight (J,) of every token, from the levels' weights (3,) and their scales by name.

    Raises:
        ValueError: a scale's level does not exist.
    """
    level_scales = level_scales or {}
    for level in level_scales:
        level_slice(level)
    parts = zip(weights, LEVELS.items(), strict=True)
    return torch.cat([(own * level_scales.get(level, 1.0)).expand(n) for own, (level, n) in parts])


def annealed_temperature(progress: float, start: float = 2.0, end: float = 0.5) -> float:
    """The temperature when a share (0 to 1) of the training is done, geometric from start to end.

    Raises:
        ValueError: a temperature is not positive.
    """
    if start <= 0 or end <= 0:
        raise ValueError(f"temperatures are positive, not {start} and {end}")
    return float(start * (end / start) ** min(max(progress, 0.0), 1.0))


def orthogonality(tokens: torch.Tensor) -> torch.Tensor:
    """How alike the levels of tokens (B, J, D) are: the mean squared cosine of their mean tokens.

    0 where every two levels are orthogonal, 1 where all point the same way.
    """
    means = torch.stack([tokens[:, level_slice(level)].mean(1) for level in LEVELS], 1)
    cosines = F.cosine_similarity(means[:, :, None], means[:, None], dim=-1)
    apart = ~torch.eye(len(LEVELS), dtype=torch.bool, device=tokens.device)
    return cosines[:, apart].square().mean()


def entropy(weights: torch.Tensor) -> torch.Tensor:
    """How evenly the levels' weights (3,) are spread: 1 when even, 0 when one level has all.

    It falls as one level takes over, so a loss that keeps every level heard *subtracts* it.
    """
    share = weights / weights.sum()
    return -torch.xlogy(share, share).sum() / torch.log(weights.new_tensor(float(len(weights))))


def norm_error(tokens: torch.Tensor, target_norm: float) -> torch.Tensor:
    """Mean squared relative distance of every token's own norm from a target.

    Args:
        tokens: (..., D).
        target_norm: positive.

    Raises:
        ValueError: the target is not positive.
    """
    if target_norm <= 0:
        raise ValueError(f"a norm to aim at is positive, not {target_norm}")
    return (tokens.norm(dim=-1) / target_norm - 1).square().mean()
