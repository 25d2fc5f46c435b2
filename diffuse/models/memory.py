"""Recall of levels: level tokens drawn towards those of phrases that are known.

What `RetrievalMemory` is to prompt embeds, level by level: a level that is unsure between a thing
and nothing would be drawn as half a thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from align.config.arguments import MemoryArguments
from align.models.memory import RetrievalMemory
from diffuse.models.levels import LEVELS, NUM_LEVEL_TOKENS, level_slice


class LevelRetrievalMemory(nn.Module):
    """What each level remembers, around a centre that is taken away before tokens are compared.

    Args:
        sizes: by level, rows, share and temperature of its `RetrievalMemory`.
        width: D, of a token.
    """

    def __init__(self, sizes: Mapping[str, Mapping[str, Any]], width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleDict(
            {
                level: RetrievalMemory(shape=(n, width), **sizes[level])
                for level, n in LEVELS.items()
            }
        )
        self.register_buffer("center", torch.zeros(NUM_LEVEL_TOKENS, width))

    @classmethod
    def from_targets(
        cls, targets: torch.Tensor, spread: torch.Tensor, given: MemoryArguments
    ) -> LevelRetrievalMemory | None:
        """A memory of tokens that phrases ask for; None where a level has more than the options.

        Args:
            wanted: (N, J, D), those of all rows.
            spread: (D,), the unit of differences.
            given: the options.
        """
        if not len(targets) or not given.retrieval_memory:
            return None
        unique = {}
        for level in LEVELS:
            found = _unique_rows(targets[:, level_slice(level)], given.retrieval_memory)
            if found is None:
                print(
                    f"more phrases of the {level} than --retrieval_memory {given.retrieval_memory}: none remembered"
                )
                return None
            unique[level] = found
        options = {
            "share": given.retrieval_memory_weight,
            "temperature": given.retrieval_memory_temperature,
        }
        sizes = {level: {"rows": len(rows), **options} for level, rows in unique.items()}
        made = cls(sizes, targets.shape[-1])
        for level, rows in unique.items():
            center = rows.mean(0)
            made.get_buffer("center")[level_slice(level)] = center
            made._level(level).get_buffer("embeds").copy_((rows - center) / spread)
        return made

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        """What a configuration keeps of it."""
        return {level: dict(self._level(level).config) for level in LEVELS}

    def _level(self, level: str) -> RetrievalMemory:
        return cast(RetrievalMemory, self.levels[level])

    def forward(self, tokens: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        """Level tokens (B, J, D), each level drawn towards what it is like."""
        center = self.get_buffer("center")
        standard = (tokens - center) / spread
        parts = [self._level(level)(standard[:, level_slice(level)], None)[0] for level in LEVELS]
        return center + torch.cat(parts, 1) * spread


def _unique_rows(rows: torch.Tensor, limit: int) -> torch.Tensor | None:
    """Every row of (N, n, D) once, in float32; None where they are more than a limit."""
    found: dict[bytes, int] = {}
    for i, row in enumerate(rows.numpy()):
        found.setdefault(row.tobytes(), i)
        if len(found) > limit:
            return None
    return rows[list(found.values())].float()
