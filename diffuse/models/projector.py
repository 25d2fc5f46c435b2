"""The level projector: audio tokens to level tokens in the space of the text embeds.

A foreground token is initialized as one position of the prompt embeds from the aligned encoder, so
that a UNet that conditions on text can use it before any training; background and ambience are
initialized to no audio. A resampler over the audio tokens learns residuals for all levels.

A phrase has the same tokens at every level, and attention is permutation-invariant, so background
and ambience have their own learned projections, which tell the UNet which level a token belongs
to.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from align.models.adapters.layers import masked_mean
from align.models.adapters.resampler import Resampler
from diffuse.models.levels import LEVELS, NUM_LEVEL_TOKENS, level_slice

PROJECTED_LEVELS = tuple(LEVELS)[1:]  # the foreground needs none


def prompt_positions(length: int) -> torch.Tensor:
    """Return the prompt positions (J,) that the level tokens are initialized from.

    Every level includes the first position, which attention uses as a default, and the last.
    Positions are dense among the words and sparse in the padding.

    Args:
        length: Number L of prompt positions.
    """
    picked = []
    for count in LEVELS.values():
        steps = torch.linspace(0, 1, count).square() * (length - 1)
        picked.append(steps.round().long())
    return torch.cat(picked)


class LevelProjector(nn.Module):
    """Projects audio tokens and the prompt embeds of the same clip to J level tokens.

    Args:
        token_width: Width H of the audio tokens.
        length: Number L of prompt positions.
        width: Width D of the prompt embeds and the level tokens.
        inner_width: Hidden size of the resampler.
        depth: Number of layers of the resampler.
        heads: Number of attention heads of the resampler.
    """

    def __init__(
        self,
        token_width: int,
        length: int,
        width: int,
        inner_width: int = 256,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.length, self.width = length, width
        self.norm_tokens = nn.LayerNorm(token_width)
        self.resampler = Resampler(
            token_width,
            NUM_LEVEL_TOKENS,
            width,
            width=inner_width,
            depth=depth,
            heads=heads,
            dropout=0.0,
        )
        nn.init.zeros_(self.resampler.proj_out.weight)
        nn.init.zeros_(self.resampler.proj_out.bias)
        # Each foreground token is initialized as one prompt position. The encoder's prediction
        # describes the foreground, so the other levels are initialized to no audio.
        initial = nn.functional.one_hot(prompt_positions(length), length).float()
        self.mixture = nn.Parameter(initial[level_slice("foreground")].clone())
        self.register_buffer("initial_mixture", initial, persistent=False)
        # Standard deviation of the text space: the unit of all learned residuals.
        self.register_buffer("std", torch.ones(width))
        # Level tokens without audio; see `set_space`.
        self.register_buffer("null_tokens", torch.zeros(NUM_LEVEL_TOKENS, width))
        self.level_projections = nn.ModuleDict(
            {level: nn.Linear(width, width) for level in PROJECTED_LEVELS}
        )
        for weight in self.level_projections.parameters():
            nn.init.zeros_(weight)

    def set_space(self, std: torch.Tensor, unconditional: torch.Tensor) -> None:
        """Set the statistics of the text space.

        Args:
            std: Standard deviation (D,) of the text embeds by dimension.
            unconditional: Unconditional embeds (1, L, D) of the base model.
        """
        self.get_buffer("std").copy_(std)
        self.get_buffer("null_tokens").copy_(
            (self.get_buffer("initial_mixture") @ unconditional.float())[0]
        )

    def project_levels(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the projection of each level; initially the identity.

        Args:
            tokens: Level tokens (B, J, D).

        Returns:
            Level tokens (B, J, D) as the UNet's layers receive them.
        """
        null_tokens, std = self.get_buffer("null_tokens"), self.get_buffer("std")
        standardized = (tokens - null_tokens) / std
        parts = [tokens[:, level_slice("foreground")]]
        for level in PROJECTED_LEVELS:
            part = level_slice(level)
            residual = self.level_projections[level](standardized[:, part]) * std
            parts.append(tokens[:, part] + residual)
        return torch.cat(parts, 1)

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, embeds: torch.Tensor
    ) -> torch.Tensor:
        """Compute level tokens.

        Args:
            tokens: Audio tokens (B, S, H).
            mask: Boolean mask (B, S), true for valid tokens.
            embeds: Prompt embeds (B, L, D) of the same clips from the aligned encoder.

        Returns:
            Level tokens (B, J, D), in the order of `LEVELS`.

        Raises:
            ValueError: If the shape of the embeds does not match the projector.
        """
        if embeds.shape[1:] != (self.length, self.width):
            raise ValueError(
                f"the prompt embeds have shape {tuple(embeds.shape[1:])} and the adapter expects "
                f"{(self.length, self.width)}: it belongs to another encoder or base model"
            )
        # The mean of the clip is one more token: contrastive backbones are pretrained on it.
        pooled = masked_mean(tokens, mask)[:, None]
        tokens, mask = torch.cat([tokens, pooled], 1), torch.cat([mask, mask.any(1, True)], 1)
        learned, _ = self.resampler(self.norm_tokens(tokens), mask)
        rest = self.get_buffer("null_tokens")[self.mixture.shape[0] :].expand(len(embeds), -1, -1)
        initial = torch.cat([self.mixture @ embeds, rest], 1)
        return initial + learned * self.get_buffer("std")

    def targets(self, phrases: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Compute the target level tokens of phrases.

        They are the positions that the level tokens are initialized from, in the embeds of each
        level's phrase.

        Args:
            phrases: Text embeds (B, L, D) of the phrases by level.

        Returns:
            Target tokens (B, J, D).

        Raises:
            ValueError: If a level has no phrase.
        """
        missing = [level for level in LEVELS if level not in phrases]
        if missing:
            raise ValueError(f"every level needs a phrase: there is none for {', '.join(missing)}")
        initial = self.get_buffer("initial_mixture")
        return torch.cat([initial[level_slice(level)] @ phrases[level] for level in LEVELS], 1)
