"""What the captions of a data set ask for: standardised target embeds, encoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from align.cache import Cache, digest, digest_of_weights
from align.prompts import Prompts, PromptSpace, Statistics
from align.store import Store

BLOCK_ROWS = 64  # always the same captions together: another batch could round differently


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
    def of(
        cls, space: PromptSpace, captions: Sequence[str], cache: Cache | None = None
    ) -> CaptionTable:
        """Encodes the different captions among those given.

        Args:
            space: whose text encoders are asked.
            captions: repeated ones count in `weights`.
            cache: where embeds are kept, in half precision; without one they are computed anew
                and exact.
        """
        counts = Counter(captions)
        unique = list(counts)
        prompts = space.encode(unique) if cache is None else _kept(space, unique, cache)
        return cls(unique, prompts, torch.tensor(list(counts.values())).float())

    def only(self, captions: Sequence[str]) -> CaptionTable:
        """The part of this table that some captions, all of them in it, need."""
        counts = Counter(captions)
        chosen = self.index(list(counts))
        # The first ones, as they are where a training asks, share this table's memory.
        first = torch.equal(chosen, torch.arange(len(counts)))
        prompts = self.prompts.rows(slice(len(counts)) if first else chosen)
        return CaptionTable(list(counts), prompts, torch.tensor(list(counts.values())).float())

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


def _kept(space: PromptSpace, captions: Sequence[str], cache: Cache) -> Prompts:
    """The embeds of different captions, computed once and rounded to half precision."""
    ordered = sorted(captions)
    null = space.unconditional

    def make(store: Store) -> None:
        for start in tqdm(range(len(store), len(ordered), BLOCK_ROWS), "captions", mininterval=1):
            found = space.encode(ordered[start : start + BLOCK_ROWS])
            columns = [found.embeds] + ([] if found.pooled is None else [found.pooled])
            store.append([[part.numpy() for part in row] for row in zip(*columns, strict=True)])

    def size_bytes() -> float:
        pooled = 0 if null.pooled is None else null.pooled[0].numel()
        return 2.0 * len(ordered) * (null.embeds[0].numel() + pooled)

    about = {"captions": digest(ordered), "space": space_digest(space)}
    store = cache.made("captions", about, "caption embeds", size_bytes, make)
    where = {caption: row for row, caption in enumerate(ordered)}
    rows = [store[where[caption]] for caption in captions]
    columns = [
        torch.stack([torch.from_numpy(part) for part in column]).float()
        for column in zip(*rows, strict=True)
    ]
    return Prompts(columns[0], columns[1] if len(columns) > 1 else None, null.padding)


def space_digest(space: PromptSpace) -> str:
    """A short name that follows from all that turns a caption into a pipeline's embeds."""
    parts: dict[str, Any] = {"pipeline": type(space._pipeline).__name__}
    for name, part in space._pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            parts[name] = [digest_of_weights(part.state_dict()), str(getattr(part, "config", ""))]
        elif hasattr(part, "get_vocab"):
            parts[name] = [type(part).__name__, part.get_vocab(), part.model_max_length]
    return digest(parts)


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
