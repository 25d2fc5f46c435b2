"""What the captions of a data set ask for: standardised target embeds, encoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from align.prompts import Prompts, PromptSpace, Statistics


@dataclass(frozen=True)
class CaptionTable:
    """The prompt embeds of every different caption of a data set.

    Attributes:
        captions: the different captions.
        prompts: their embeds (C, L, D), and pooled (C, P).
        weights: (C,) how many rows have each.
    """

    captions: list[str]
    prompts: Prompts
    weights: torch.Tensor

    @classmethod
    def of(cls, space: PromptSpace, captions: Sequence[str]) -> CaptionTable:
        """Encodes the different captions among those given."""
        counts = Counter(captions)
        return cls(
            list(counts), space.encode(list(counts)), torch.tensor(list(counts.values())).float()
        )

    def index(self, captions: Sequence[str]) -> torch.Tensor:
        """Row numbers (N,) of captions in this table."""
        where = {caption: i for i, caption in enumerate(self.captions)}
        return torch.tensor([where[caption] for caption in captions])

    def statistics(self) -> dict[str, Statistics]:
        """Statistics of "embeds", and of "pooled" where there are any."""
        found = {"embeds": Statistics.of(self.prompts.embeds)}
        if self.prompts.pooled is not None:
            found["pooled"] = Statistics.of(self.prompts.pooled)
        return found


def label_means(
    embeds: torch.Tensor, captions: torch.Tensor, labels: Sequence[str]
) -> tuple[list[str], torch.Tensor]:
    """What the sound determines where a label has several captions: their mean.

    Args:
        embeds: (C, L, D) of the different captions.
        captions: (N,) each row's caption, as a row of `embeds`.
        labels: N.

    Returns:
        The different labels in sorted order, and (K, L, D) the mean embeds of their rows.
    """
    names = sorted(set(labels))
    where = {name: i for i, name in enumerate(names)}
    share = torch.zeros(len(names), len(embeds))
    for label, caption in zip(labels, captions.tolist(), strict=True):
        share[where[label], caption] += 1
    share /= share.sum(1, keepdim=True)
    return names, torch.einsum("kc,cld->kld", share, embeds)
