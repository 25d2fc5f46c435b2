"""Heads: each one prompt space's adapter and all that a pipeline of that space needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers.utils import ModelOutput

from align.models.adapters import build_adapter
from align.models.memory import RetrievalMemory
from align.prompts.embeds import EmbedStatistics, PromptEmbeds, SpaceShape


@dataclass
class AudioPromptOutput(ModelOutput):
    """What the encoder answers.

    Attributes:
        embeds: (B, L, D), standardised: the space's `EmbedStatistics.restore` makes prompt embeds.
        pooled: (B, P), standardised, or None.
    """

    embeds: torch.Tensor | None = None
    pooled: torch.Tensor | None = None


def _register(head: nn.Module, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    head.register_buffer(name, torch.zeros(shape, dtype=dtype))


class Head(nn.Module):
    """Audio tokens to a pipeline's prompt embeds.

    Its buffers travel with the weights: the space's statistics and the pipeline's own
    unconditional embeds, so that a pipeline can be driven that has no text encoder loaded.

    Args:
        token_width: H, the audio tokens' width.
        space: the prompt space's sizes.
        adapter: the adapter's kind (key "kind") and sizes.
        recall: rows, share and temperature of its `RetrievalMemory`, where it has one.
    """

    def __init__(
        self,
        token_width: int,
        space: SpaceShape,
        adapter: dict[str, Any],
        retrieval_memory: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        kwargs = {k: v for k, v in adapter.items() if k != "adapter_type"}
        self.adapter = build_adapter(
            adapter["adapter_type"],
            token_width=token_width,
            length=space.length,
            embed_width=space.width,
            pooled_width=space.pooled_width,
            **kwargs,
        )
        shapes: dict[str, tuple[int, ...]] = {"embeds": (space.length, space.width)}
        if space.pooled_width:
            shapes["pooled"] = (space.pooled_width,)
        for name, shape in shapes.items():
            for buffer in ("mean", "std", "unconditional"):
                _register(self, f"{name}_{buffer}", shape, torch.float32)
            _register(self, f"{name}_constant", shape, torch.bool)
        self.retrieval_memory: RetrievalMemory | None = None
        if retrieval_memory is not None:
            self.retrieval_memory = RetrievalMemory(
                shape=(space.length, space.width),
                pooled_width=space.pooled_width,
                **retrieval_memory,
            )

    def set_statistics(
        self, statistics: dict[str, EmbedStatistics], unconditional: PromptEmbeds
    ) -> None:
        """Stores the space's statistics ("embeds", "pooled") and unconditional embeds."""
        for name, found in statistics.items():
            self.get_buffer(f"{name}_mean").copy_(found.mean)
            self.get_buffer(f"{name}_std").copy_(found.std)
            self.get_buffer(f"{name}_constant").copy_(found.constant)
            value = getattr(unconditional, name)
            self.get_buffer(f"{name}_unconditional").copy_(value[0])

    @property
    def has_statistics(self) -> bool:
        """Whether it was told its space: a head that was trained, or imported, knows it."""
        return bool(self.get_buffer("embeds_std").any())

    @property
    def predicts_raw_embeds(self) -> bool:
        """Whether its adapter answers in the pipeline's own terms: statistics only measure it."""
        return bool(getattr(self.adapter, "predicts_raw_embeds", False))

    def statistics(self, name: str = "embeds") -> EmbedStatistics:
        """The stored statistics of the "embeds" or the "pooled" embeds."""
        return EmbedStatistics(
            mean=self.get_buffer(f"{name}_mean"),
            std=self.get_buffer(f"{name}_std"),
            constant=self.get_buffer(f"{name}_constant"),
        )

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standardised embeds (B, L, D) and pooled (B, P) or None; zero where constant.

        What is remembered is followed in use alone: training must see the adapter's own errors.
        """
        embeds, pooled = self.adapter(tokens, mask)
        if self.predicts_raw_embeds:
            embeds = self.statistics().standardize(embeds)
        embeds = embeds.masked_fill(self.embeds_constant, 0.0)
        if pooled is not None:
            pooled = pooled.masked_fill(self.pooled_constant, 0.0)
        if self.retrieval_memory is not None and not self.training:
            embeds, pooled = self.retrieval_memory(embeds, pooled)
        return embeds, pooled

    def to_prompt_embeds(self, embeds: torch.Tensor, pooled: torch.Tensor | None) -> PromptEmbeds:
        """What a pipeline takes, from standardised embeds."""
        whole = self.statistics().restore(embeds)
        if pooled is not None:
            pooled = self.statistics("pooled").restore(pooled)
        return PromptEmbeds(whole, pooled, self.space.padding)

    def unconditional(self, batch_size: int) -> PromptEmbeds:
        """The pipeline's unconditional embeds, repeated to a batch."""
        return self._stored("unconditional", batch_size)

    def center(self, batch_size: int) -> PromptEmbeds:
        """The mean of the captions' embeds, repeated to a batch."""
        return self._stored("mean", batch_size)

    def _stored(self, name: str, batch_size: int) -> PromptEmbeds:
        embeds = self.get_buffer(f"embeds_{name}").expand(batch_size, -1, -1)
        pooled = None
        if self.space.pooled_width:
            pooled = self.get_buffer(f"pooled_{name}").expand(batch_size, -1)
        return PromptEmbeds(embeds, pooled, self.space.padding)


class Heads(nn.ModuleDict):
    """An encoder's heads by the names of their prompt spaces.

    Args:
        token_width: H, the audio tokens' width.
        spaces: the prompt spaces by name.
        adapter: the adapter's kind and sizes, of every head.
        recall: by name, what those heads that have a `RetrievalMemory` keep of it.
    """

    def __init__(
        self,
        token_width: int,
        spaces: dict[str, SpaceShape],
        adapter: dict[str, Any],
        retrieval_memory: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.names: list[str] = []
        for name, space in spaces.items():
            self.add(name, Head(token_width, space, adapter, (retrieval_memory or {}).get(name)))

    def add(self, name: str, head: Head) -> None:
        """Adds the head of a further space."""
        self[_key(name)] = head
        self.names.append(name)

    def for_space(self, space: str | None) -> Head:
        """The head of a space.

        Raises:
            ValueError: there is no such space.
        """
        if space not in self.names:
            there_are = ", ".join(self.names) or "none"
            raise ValueError(f"this encoder has no prompt space {space!r}; it has: {there_are}")
        return cast(Head, self[_key(space)])


def _key(space: str) -> str:
    # A module's name may hold no dot; the names of bases do ("stabilityai/...-base-1.0").
    return space.replace(".", "%2E")
