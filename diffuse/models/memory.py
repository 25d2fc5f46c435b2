"""Retrieval memory of level tokens: interpolates them with those of known phrases.

It is `RetrievalMemory` applied per level: predictions between a phrase and no audio would otherwise
generate a mixture of both.
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
    """One retrieval memory per level, for tokens centered on its own mean.

    Args:
        sizes: Size, weight and temperature of each level's `RetrievalMemory`.
        width: Width D of the tokens.
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
        cls, targets: torch.Tensor, std: torch.Tensor, given: MemoryArguments
    ) -> LevelRetrievalMemory | None:
        """Create a memory of the target tokens of phrases.

        Args:
            targets: Target tokens (N, J, D) of all rows.
            std: Standard deviation (D,), the unit of differences.
            given: Options of the memory.

        Returns:
            The memory, or None if it is disabled, there are no targets, or a level has more phrases
            than --retrieval_memory.
        """
        if not len(targets) or not given.retrieval_memory:
            return None
        unique = {}
        for level in LEVELS:
            found = _unique_rows(targets[:, level_slice(level)], given.retrieval_memory)
            if found is None:
                print(
                    f"the {level} has more phrases than --retrieval_memory "
                    f"{given.retrieval_memory}: the retrieval memory is disabled"
                )
                return None
            unique[level] = found
        options = {
            "weight": given.retrieval_memory_weight,
            "temperature": given.retrieval_memory_temperature,
        }
        sizes = {level: {"size": len(rows), **options} for level, rows in unique.items()}
        memory = cls(sizes, targets.shape[-1])
        for level, rows in unique.items():
            center = rows.mean(0)
            memory.get_buffer("center")[level_slice(level)] = center
            memory._level(level).get_buffer("embeds").copy_((rows - center) / std)
        return memory

    @property
    def sizes(self) -> dict[str, dict[str, Any]]:
        """Size, weight and temperature by level, as the configuration stores them."""
        return {level: dict(self._level(level).config) for level in LEVELS}

    def _level(self, level: str) -> RetrievalMemory:
        return cast(RetrievalMemory, self.levels[level])

    def forward(self, tokens: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """Interpolate level tokens with the retrieved ones.

        Args:
            tokens: Level tokens (B, J, D).
            std: Standard deviation (D,), the unit of differences.

        Returns:
            Level tokens (B, J, D).
        """
        center = self.get_buffer("center")
        standardized = (tokens - center) / std
        parts = [
            self._level(level)(standardized[:, level_slice(level)], None)[0] for level in LEVELS
        ]
        return center + torch.cat(parts, 1) * std


def _unique_rows(rows: torch.Tensor, limit: int) -> torch.Tensor | None:
    """Return the unique rows of (N, n, D) in float32, or None if there are more than a limit."""
    found: dict[bytes, int] = {}
    for i, row in enumerate(rows.numpy()):
        found.setdefault(row.tobytes(), i)
        if len(found) > limit:
            return None
    return rows[list(found.values())].float()
