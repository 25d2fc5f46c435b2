"""The projector: what a recording sounds like, as level tokens in the space that the text lives in.

A token of the foreground starts as one position of the prompt embeds that the aligned encoder
answers with, so that a UNet which reads text can read it before anything is trained; behind it
there is nothing to hear at first. A resampler over the audio tokens learns what to add to both.

A thing is said alike at every level: what is behind differs from what is in front by its place in
the sequence alone, and attention has no eye for places. What a level means for the picture is a
map of its own, from the level's tokens to what the UNet's layers read.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from align.models.adapters.layers import masked_mean
from align.models.adapters.resampler import Resampler
from diffuse.models.levels import LEVELS, NUM_LEVEL_TOKENS, level_slice

PROJECTED_LEVELS = tuple(LEVELS)[1:]  # the foreground is what a prompt says, and needs no map


def prompt_positions(length: int) -> torch.Tensor:
    """The prompt positions (J,) that the level tokens start from.

    Every level begins with the first position, where attention rests when it looks for nothing,
    and goes to the last, dense among the words and sparse in the padding.
    """
    picked = []
    for count in LEVELS.values():
        steps = torch.linspace(0, 1, count).square() * (length - 1)
        picked.append(steps.round().long())
    return torch.cat(picked)


class LevelProjector(nn.Module):
    """Any number of audio tokens, and the prompt embeds of the same sound, to J level tokens.

    Args:
        token_width: H, the audio tokens' width.
        length: L, the prompt's positions.
        width: D, the prompt's and the level tokens' width.
        inner_width: the resampler's own.
        depth: the resampler's layers.
        heads: the resampler's attention heads.
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
        # A token of the foreground starts as its row's mixture of the prompt's positions: one of
        # them. What the encoder answers with is in front, so the other levels start with nothing.
        start = nn.functional.one_hot(prompt_positions(length), length).float()
        self.mixture = nn.Parameter(start[level_slice("foreground")].clone())
        self.register_buffer("initial_mixture", start, persistent=False)
        # The text space's spread by dimension: what is learned is in units of it.
        self.register_buffer("spread", torch.ones(width))
        # What the tokens are where there is nothing to hear; see `set_space`.
        self.register_buffer("null_tokens", torch.zeros(NUM_LEVEL_TOKENS, width))
        self.level_projections = nn.ModuleDict(
            {level: nn.Linear(width, width) for level in PROJECTED_LEVELS}
        )
        for weight in self.level_projections.parameters():
            nn.init.zeros_(weight)

    def set_space(self, spread: torch.Tensor, unconditional: torch.Tensor) -> None:
        """Takes over the text space's spread (D,) by dimension and the base's null (1, L, D)."""
        self.get_buffer("spread").copy_(spread)
        self.get_buffer("null_tokens").copy_(
            (self.get_buffer("initial_mixture") @ unconditional.float())[0]
        )

    def project_levels(self, tokens: torch.Tensor) -> torch.Tensor:
        """Level tokens (B, J, D) as the UNet's layers read them: at first as they are."""
        null_tokens, spread = self.get_buffer("null_tokens"), self.get_buffer("spread")
        standardized = (tokens - null_tokens) / spread
        parts = [tokens[:, level_slice("foreground")]]
        for level in PROJECTED_LEVELS:
            where = level_slice(level)
            parts.append(
                tokens[:, where] + self.level_projections[level](standardized[:, where]) * spread
            )
        return torch.cat(parts, 1)

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, embeds: torch.Tensor
    ) -> torch.Tensor:
        """Level tokens.

        Args:
            tokens: (B, S, H) audio tokens.
            mask: (B, S) bool, true where heard.
            embeds: (B, L, D) prompt embeds of the same recordings, by the aligned encoder.

        Returns:
            (B, J, D), J tokens in the order of `LEVELS`.

        Raises:
            ValueError: embeds are not of this projector's sizes.
        """
        if embeds.shape[1:] != (self.length, self.width):
            raise ValueError(
                f"prompt embeds are {tuple(embeds.shape[1:])} and the adapter hears "
                f"{(self.length, self.width)}: it belongs to another encoder or base"
            )
        # The whole recording is one more token: what a backbone was pre-trained to say of it.
        pooled = masked_mean(tokens, mask)[:, None]
        tokens, mask = torch.cat([tokens, pooled], 1), torch.cat([mask, mask.any(1, True)], 1)
        learned, _ = self.resampler(self.norm_tokens(tokens), mask)
        rest = self.get_buffer("null_tokens")[self.mixture.shape[0] :].expand(len(embeds), -1, -1)
        started = torch.cat([self.mixture @ embeds, rest], 1)
        return started + learned * self.get_buffer("spread")

    def targets(self, phrases: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The tokens (B, J, D) that levels should be, given text embeds (B, L, D) of their phrases.

        They are the positions that the level tokens start from, of each level's own phrase.

        Raises:
            ValueError: a level has no phrase.
        """
        missing = [level for level in LEVELS if level not in phrases]
        if missing:
            raise ValueError(f"every level needs a phrase: there is none for {', '.join(missing)}")
        start = self.get_buffer("initial_mixture")
        return torch.cat([start[level_slice(level)] @ phrases[level] for level in LEVELS], 1)
