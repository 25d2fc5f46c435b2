"""Encode the captions of a dataset once, and standardize them as training targets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from align.preprocessing.cache import Cache, digest, state_dict_digest
from align.preprocessing.store import Store
from align.prompts.embeds import EmbedStatistics, PromptEmbeds
from align.prompts.space import PromptSpace

MAX_IN_MEMORY_BYTES = 1 << 30  # in float32; larger targets are computed on access
BLOCK_ROWS = 64  # fixed batches: results may round differently in another batch


@dataclass(frozen=True)
class CaptionEmbeds:
    """Prompt embeds of the distinct captions of a dataset.

    Attributes:
        captions: C distinct captions.
        prompts: Embeds (C, L, D) and pooled embeds (C, P), in float32, or in half precision and
            possibly memory-mapped if they come from a store.
        weights: Number of rows with each caption, of shape (C,).
        indices: Row of `prompts` of each caption, of shape (C,), if `prompts` has other captions as
            well.
    """

    captions: list[str]
    prompts: PromptEmbeds
    weights: torch.Tensor
    indices: torch.Tensor | None = None

    @classmethod
    def encode(
        cls, space: PromptSpace, captions: Sequence[str], cache: Cache | None = None
    ) -> CaptionEmbeds:
        """Encode the distinct captions among those given.

        Args:
            space: Prompt space that encodes them.
            captions: Captions; duplicates are counted in `weights`.
            cache: Cache for the embeds, in half precision; without one they are in float32.
        """
        counts = Counter(captions)
        unique = list(counts) if cache is None else sorted(counts)
        prompts = space.encode(unique) if cache is None else _cached_embeds(space, unique, cache)
        return cls(unique, prompts, torch.tensor([counts[text] for text in unique]).float())

    def select(self, captions: Sequence[str]) -> CaptionEmbeds:
        """Select captions of this table without copying their embeds."""
        counts = Counter(captions)
        weights = torch.tensor(list(counts.values())).float()
        return CaptionEmbeds(list(counts), self.prompts, weights, self.index(list(counts)))

    def index(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the rows (N,) of `prompts` that belong to captions."""
        where = {caption: i for i, caption in enumerate(self.captions)}
        found = torch.tensor([where[caption] for caption in captions], dtype=torch.long)
        return found if self.indices is None else self.indices[found]

    def rows(self, captions: Sequence[str]) -> PromptEmbeds:
        """Return the prompts of captions in float32."""
        return self.prompts.select(self.index(captions)).to(torch.float32)

    def blocks(self) -> Iterator[PromptEmbeds]:
        """Yield the prompts of all captions in float32, in blocks."""
        for start in range(0, len(self.captions), BLOCK_ROWS):
            yield self.rows(self.captions[start : start + BLOCK_ROWS])

    def statistics(self) -> dict[str, EmbedStatistics]:
        """Compute the statistics of "embeds", and of "pooled" if there are pooled embeds."""
        found = {"embeds": EmbedStatistics.of_blocks(lambda: (b.embeds for b in self.blocks()))}
        if self.prompts.pooled is not None:
            found["pooled"] = EmbedStatistics.of_blocks(self._pooled_blocks)
        return found

    def _pooled_blocks(self) -> Iterator[torch.Tensor]:
        return (block.pooled for block in self.blocks() if block.pooled is not None)


def _cached_embeds(space: PromptSpace, ordered: list[str], cache: Cache) -> PromptEmbeds:
    """Return the cached embeds of distinct captions, in half precision."""
    unconditional = space.unconditional

    def create(store: Store) -> None:
        for start in tqdm(range(len(store), len(ordered), BLOCK_ROWS), "captions", mininterval=1):
            found = space.encode(ordered[start : start + BLOCK_ROWS])
            columns = [found.embeds] + ([] if found.pooled is None else [found.pooled])
            store.append([[part.numpy() for part in row] for row in zip(*columns, strict=True)])

    def estimate_bytes() -> float:
        pooled = 0 if unconditional.pooled is None else unconditional.pooled[0].numel()
        return 2.0 * len(ordered) * (unconditional.embeds[0].numel() + pooled)

    key = {"captions": digest(ordered), "space": space_digest(space)}
    store = cache.get_or_create("captions", key, "caption embeds", estimate_bytes, create)
    columns = [torch.from_numpy(column) for column in store.columns()]
    return PromptEmbeds(columns[0], columns[1] if len(columns) > 1 else None, unconditional.padding)


def space_digest(space: PromptSpace) -> str:
    """Return a short hash of a pipeline's text encoders and tokenizers."""
    parts: dict[str, Any] = {"pipeline": type(space._pipeline).__name__}
    for name, part in space._pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            parts[name] = [state_dict_digest(part.state_dict()), str(getattr(part, "config", ""))]
        elif hasattr(part, "get_vocab"):
            parts[name] = [type(part).__name__, part.get_vocab(), part.model_max_length]
    return digest(parts)


class LabelMixture:
    """Captions of each label, weighted by their frequency.

    Args:
        captions: Caption index of each row, of shape (N,).
        labels: Label of each row.

    Attributes:
        names: Distinct labels in sorted order.
    """

    def __init__(self, captions: torch.Tensor, labels: Sequence[str]) -> None:
        self.names = sorted(set(labels))
        counts_by_label: dict[str, Counter[int]] = {name: Counter() for name in self.names}
        for label, caption in zip(labels, captions.tolist(), strict=True):
            counts_by_label[label][caption] += 1
        self._label_weights = [
            (torch.tensor(list(counts)), torch.tensor(list(counts.values())) / counts.total())
            for counts in counts_by_label.values()
        ]

    def means(self, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean rows of labels in float32, of shape (K, ...).

        Args:
            rows: Rows of all captions, of shape (C, ...).
            labels: Indices of K labels in `names`.
        """
        found = torch.zeros(len(labels), *rows.shape[1:])
        for k, label in enumerate(labels.tolist()):
            captions, weights = self._label_weights[label]
            found[k] = torch.tensordot(weights, rows[captions].float(), 1)
        return found

    def all_means(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the mean rows of all labels, in the order of `names`."""
        return self.means(rows, torch.arange(len(self.names)))


class LazyTargets(nn.Module):
    """Standardized targets, computed on access and returned on the device of the indices.

    Args:
        rows: Rows of captions (C, ...) in any precision, possibly memory-mapped; not moved.
        statistics: Statistics that standardize them.
        mixture: Makes a target the mean of a label's rows; None uses each caption's own row.
    """

    mean: torch.Tensor
    std: torch.Tensor
    constant: torch.Tensor

    def __init__(
        self, rows: torch.Tensor, statistics: EmbedStatistics, mixture: LabelMixture | None = None
    ) -> None:
        super().__init__()
        self._rows, self._mixture = (
            [rows],
            mixture,
        )  # in a list, so that they are not registered and moved
        for name, value in vars(statistics).items():
            self.register_buffer(name, value.clone(), persistent=False)

    def __len__(self) -> int:
        return len(self._rows[0] if self._mixture is None else self._mixture.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all targets together."""
        return len(self), *self._rows[0].shape[1:]

    def __getitem__(self, which: torch.Tensor) -> torch.Tensor:
        """Return the targets (N, ...) of indices (N,) in float32."""
        here, rows = which.cpu(), self._rows[0]
        found = rows[here].float() if self._mixture is None else self._mixture.means(rows, here)
        return self.standardize(found.to(self.mean.device)).to(which.device)

    def standardize(self, rows: torch.Tensor) -> torch.Tensor:
        """Standardize rows, see `EmbedStatistics.standardize`."""
        return EmbedStatistics(self.mean, self.std, self.constant).standardize(rows)


def standardized_targets(
    rows: torch.Tensor, statistics: EmbedStatistics, mixture: LabelMixture | None = None
) -> torch.Tensor | LazyTargets:
    """Return standardized targets as a tensor, or as `LazyTargets` if they are large.

    Args:
        rows: Rows of captions (C, ...) in any precision, possibly memory-mapped.
        statistics: Statistics that standardize them.
        mixture: Makes a target the mean of a label's rows; None uses each caption's own row.
    """
    found = LazyTargets(rows, statistics, mixture)
    if 4 * math.prod(found.shape) > MAX_IN_MEMORY_BYTES:
        return found
    return found[torch.arange(len(found))]
