"""Recall of levels: level tokens drawn towards those of phrases that are known.

What `RetrievalMemory` is to prompt embeds, level by level: a level that is unsure between a thing
and nothing would be drawn as half a thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from align.config.arguments import RecallArguments
from align.models.memory import Recall
from diffuse.models.levels import LEVELS, TOKENS, places


class LevelRecall(nn.Module):
    """What each level remembers, around a centre that is taken away before tokens are compared.

    Args:
        sizes: by level, rows, share and temperature of its `Recall`.
        width: D, of a token.
    """

    def __init__(self, sizes: Mapping[str, Mapping[str, Any]], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleDict(
            {level: Recall(shape=(n, width), **sizes[level]) for level, n in LEVELS.items()}
        )
        self.register_buffer("centre", torch.zeros(TOKENS, width))

    @classmethod
    def of(
        cls, wanted: torch.Tensor, spread: torch.Tensor, given: RecallArguments
    ) -> LevelRecall | None:
        """A memory of tokens that phrases ask for; None where a level has more than the options.

        Args:
            wanted: (N, J, D), those of all rows.
            spread: (D,), the unit of differences.
            given: the options.
        """
        if not len(wanted) or not given.recall:
            return None
        different = {}
        for level in LEVELS:
            found = _different(wanted[:, places(level)], given.recall)
            if found is None:
                print(f"more phrases of the {level} than --recall {given.recall}: none remembered")
                return None
            different[level] = found
        how = {"share": given.recall_share, "temperature": given.recall_temperature}
        sizes = {level: {"rows": len(rows), **how} for level, rows in different.items()}
        made = cls(sizes, wanted.shape[-1])
        for level, rows in different.items():
            centre = rows.mean(0)
            made.get_buffer("centre")[places(level)] = centre
            made._level(level).get_buffer("embeds").copy_((rows - centre) / spread)
        return made

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        """What a configuration keeps of it."""
        return {level: dict(self._level(level).sizes) for level in LEVELS}

    def _level(self, level: str) -> Recall:
        return cast(Recall, self.levels[level])

    def forward(self, tokens: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        """Level tokens (B, J, D), each level drawn towards what it is like."""
        centre = self.get_buffer("centre")
        standard = (tokens - centre) / spread
        parts = [self._level(level)(standard[:, places(level)], None)[0] for level in LEVELS]
        return centre + torch.cat(parts, 1) * spread


def _different(rows: torch.Tensor, limit: int) -> torch.Tensor | None:
    """Every row of (N, n, D) once, in float32; None where they are more than a limit."""
    found: dict[bytes, int] = {}
    for i, row in enumerate(rows.numpy()):
        found.setdefault(row.tobytes(), i)
        if len(found) > limit:
            return None
    return rows[list(found.values())].float()
