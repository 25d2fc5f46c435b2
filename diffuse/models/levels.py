"""Levels: the audio tokens of foreground, background and ambience.

CLAP2Diffusion planned a hierarchy of foreground, background and ambience tokens, with UNet blocks
that attend to one level each. Here the levels are positions in one sequence of tokens: a block
attends to a level by selecting its positions, and a level is exchanged by replacing them.
All functions are pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F

LEVELS = {"foreground": 5, "background": 3, "ambience": 2}
NUM_LEVEL_TOKENS = sum(LEVELS.values())
ALL_LEVELS = tuple(LEVELS)

# Levels that the down, mid and up blocks of the UNet attend to.
ROUTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "all": {"down": ALL_LEVELS, "mid": ALL_LEVELS, "up": ALL_LEVELS},
    "hierarchy": {"down": ("foreground",), "mid": ALL_LEVELS, "up": ("ambience",)},
    "reverse": {"down": ("ambience",), "mid": ALL_LEVELS, "up": ("foreground",)},
}


def level_slice(level: str) -> slice:
    """Return the positions of a level in the token sequence.

    Args:
        level: Name of the level.

    Raises:
        ValueError: If there is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"there is no level {level!r}; the levels are: {', '.join(LEVELS)}")
    before = list(LEVELS).index(level)
    start = sum(list(LEVELS.values())[:before])
    return slice(start, start + LEVELS[level])


def level_indices(levels: Sequence[str]) -> list[int]:
    """Return the positions of several levels in sequence order.

    Args:
        levels: Names of the levels.
    """
    return sorted(i for level in levels for i in range(NUM_LEVEL_TOKENS)[level_slice(level)])


def swap_level(tokens: torch.Tensor, other: torch.Tensor, level: str) -> torch.Tensor:
    """Replace one level of a batch of level tokens.

    Args:
        tokens: Level tokens (B, J, D).
        other: Level tokens (B or 1, J, D) that the level is taken from.
        level: Name of the level.

    Returns:
        Level tokens (B, J, D).
    """
    swapped = tokens.clone()
    swapped[:, level_slice(level)] = other[:, level_slice(level)]
    return swapped


def move_foreground_to_background(tokens: torch.Tensor, null_tokens: torch.Tensor) -> torch.Tensor:
    """Move the foreground of level tokens to the background.

    A level's tokens are a coarser selection of the same prompt positions as the foreground's, so
    every second foreground token has the same content there.

    Args:
        tokens: Level tokens (B, J, D).
        null_tokens: Level tokens (J, D) without audio, which the foreground is set to.

    Returns:
        Level tokens (B, J, D).
    """
    moved = tokens.clone()
    moved[:, level_slice("background")] = foreground_as_level(tokens, "background")
    moved[:, level_slice("foreground")] = null_tokens[level_slice("foreground")]
    return moved


def foreground_as_level(tokens: torch.Tensor, level: str) -> torch.Tensor:
    """Select the foreground tokens that correspond to another level.

    Args:
        tokens: Level tokens (B, J, D).
        level: Name of the level.

    Returns:
        Tokens (B, n, D), n tokens of that level.

    Raises:
        ValueError: If there is no such level.
    """
    count = len(range(NUM_LEVEL_TOKENS)[level_slice(level)])
    chosen = torch.linspace(0, LEVELS["foreground"] - 1, count).round().long()
    return tokens[:, level_slice("foreground")][:, chosen]


def level_weights(logits: torch.Tensor, temperature: torch.Tensor | float) -> torch.Tensor:
    """Compute level weights (3,) with mean one: a scaled softmax.

    Args:
        logits: Logits (3,).
        temperature: Softmax temperature; lower values sharpen the weights.
    """
    return len(LEVELS) * torch.softmax(logits / temperature, 0)


def token_weights(
    weights: torch.Tensor, level_scales: Mapping[str, float] | None = None
) -> torch.Tensor:
    """Expand level weights to token weights.

    Args:
        weights: Level weights (3,).
        level_scales: Scale of single levels by name.

    Returns:
        Token weights (J,).

    Raises:
        ValueError: If a level does not exist.
    """
    level_scales = level_scales or {}
    for level in level_scales:
        level_slice(level)
    parts = zip(weights, LEVELS.items(), strict=True)
    return torch.cat([(own * level_scales.get(level, 1.0)).expand(n) for own, (level, n) in parts])


def annealed_temperature(progress: float, start: float = 2.0, end: float = 0.5) -> float:
    """Interpolate the temperature geometrically over the training.

    Args:
        progress: Completed fraction of the training, from 0 to 1.
        start: Temperature at the first step.
        end: Temperature at the last step.

    Raises:
        ValueError: If a temperature is not positive.
    """
    if start <= 0 or end <= 0:
        raise ValueError(f"temperatures must be positive, not {start} and {end}")
    return float(start * (end / start) ** min(max(progress, 0.0), 1.0))


def orthogonality(tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean squared cosine between the mean tokens of the levels.

    0 if the levels are pairwise orthogonal, 1 if they are parallel.

    Args:
        tokens: Level tokens (B, J, D).
    """
    means = torch.stack([tokens[:, level_slice(level)].mean(1) for level in LEVELS], 1)
    cosines = F.cosine_similarity(means[:, :, None], means[:, None], dim=-1)
    off_diagonal = ~torch.eye(len(LEVELS), dtype=torch.bool, device=tokens.device)
    return cosines[:, off_diagonal].square().mean()


def entropy(weights: torch.Tensor) -> torch.Tensor:
    """Return the normalized entropy of level weights: 1 if uniform, 0 if one level has all weight.

    A loss that keeps all levels in use subtracts it.

    Args:
        weights: Level weights (3,).
    """
    share = weights / weights.sum()
    return -torch.xlogy(share, share).sum() / torch.log(weights.new_tensor(float(len(weights))))


def norm_error(tokens: torch.Tensor, target_norm: float) -> torch.Tensor:
    """Return the mean squared relative deviation of each token's norm from a target.

    Args:
        tokens: Tokens (..., D).
        target_norm: Target norm, positive.

    Raises:
        ValueError: If the target is not positive.
    """
    if target_norm <= 0:
        raise ValueError(f"the target norm must be positive, not {target_norm}")
    return (tokens.norm(dim=-1) / target_norm - 1).square().mean()
