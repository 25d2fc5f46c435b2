"""Heads: the adapter, statistics and unconditional embeds of each prompt space."""

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
    """Output of the encoder.

    Attributes:
        embeds: Standardized embeds (B, L, D); `EmbedStatistics.restore` returns prompt embeds.
        pooled: Standardized pooled embeds (B, P), or None.
    """

    embeds: torch.Tensor | None = None
    pooled: torch.Tensor | None = None


def _register(head: nn.Module, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    head.register_buffer(name, torch.zeros(shape, dtype=dtype))


class Head(nn.Module):
    """Maps audio tokens to a pipeline's prompt embeds.

    Its buffers are saved with the weights: the space's statistics and the pipeline's unconditional
    embeds, so that a pipeline can be used without its text encoder.

    Args:
        token_width: H, width of the audio tokens.
        space: Shape of the prompt space.
        adapter: The adapter's type (key "adapter_type") and options.
        retrieval_memory: Size, weight and temperature of its `RetrievalMemory`, or None.
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
        """Whether the statistics of its space are set, by training or conversion."""
        return bool(self.get_buffer("embeds_std").any())

    @property
    def predicts_raw_embeds(self) -> bool:
        """Whether its adapter predicts embeds in the pipeline's scale, not standardized ones."""
        return bool(getattr(self.adapter, "predicts_raw_embeds", False))

    def statistics(self, name: str = "embeds") -> EmbedStatistics:
        """Returns the stored statistics of the "embeds" or the "pooled" embeds."""
        return EmbedStatistics(
            mean=self.get_buffer(f"{name}_mean"),
            std=self.get_buffer(f"{name}_std"),
            constant=self.get_buffer(f"{name}_constant"),
        )

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predicts standardized embeds (B, L, D) and pooled (B, P) or None; zero where constant.

        The retrieval memory is used at inference only: training must see the adapter's own errors.
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
        """Converts standardized embeds to the prompt embeds of a pipeline."""
        whole = self.statistics().restore(embeds)
        if pooled is not None:
            pooled = self.statistics("pooled").restore(pooled)
        return PromptEmbeds(whole, pooled, self.space.padding)

    def unconditional(self, batch_size: int) -> PromptEmbeds:
        """Returns the pipeline's unconditional embeds, repeated to a batch."""
        return self._stored("unconditional", batch_size)

    def center(self, batch_size: int) -> PromptEmbeds:
        """Returns the mean caption embeds, repeated to a batch."""
        return self._stored("mean", batch_size)

    def _stored(self, name: str, batch_size: int) -> PromptEmbeds:
        embeds = self.get_buffer(f"embeds_{name}").expand(batch_size, -1, -1)
        pooled = None
        if self.space.pooled_width:
            pooled = self.get_buffer(f"pooled_{name}").expand(batch_size, -1)
        return PromptEmbeds(embeds, pooled, self.space.padding)


class Heads(nn.ModuleDict):
    """The heads of an encoder, by name of their prompt space.

    Args:
        token_width: H, width of the audio tokens.
        spaces: Prompt spaces by name.
        adapter: Type and options of every head's adapter.
        retrieval_memory: Size, weight and temperature of the `RetrievalMemory` of each space that
            has one, by name.
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
        """Adds the head of another space."""
        self[_key(name)] = head
        self.names.append(name)

    def for_space(self, space: str | None) -> Head:
        """Returns the head of a space.

        Raises:
            ValueError: The space does not exist.
        """
        if space not in self.names:
            available = ", ".join(self.names) or "none"
            raise ValueError(f"this encoder has no prompt space {space!r}; it has: {available}")
        return cast(Head, self[_key(space)])


def _key(space: str) -> str:
    # Module names must not contain dots, but names of base models do ("stabilityai/...-1.0").
    return space.replace(".", "%2E")
