"""The prompt space of a pipeline: the embeds that its own text encoders give, and their spread."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from torch.nn import functional as F

from align.asking import ask

# Spreads below this share of the space's own are taken as no spread at all: the position or
# dimension is constant, is stored, and is not learned.
CONSTANT = 1e-3
# Spreads are clipped to this range around the space's own before anything is divided by them:
# a nearly constant dimension must not weigh without bound, an outlier one must not vanish.
FLOOR, CEILING = 0.05, 20.0
BLOCK_ROWS = 64  # embeds taken at a time where all of them may be too many


@dataclass(frozen=True)
class Prompts:
    """What a pipeline takes for N prompts.

    Attributes:
        embeds: (N, L, D), what the pipeline's CLIP text encoders fill.
        pooled: (N, P), or None where the pipeline takes no pooled embeds.
        padding: zero positions and zero dimensions that the pipeline appends to the embeds, as
            Stable Diffusion 3 does for a T5 that is not loaded.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    padding: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.embeds)

    def rows(self, chosen: torch.Tensor | slice) -> Prompts:
        """Some of these prompts, or the same one several times."""
        pooled = None if self.pooled is None else self.pooled[chosen]
        return Prompts(self.embeds[chosen], pooled, self.padding)

    def to(self, *where: Any) -> Prompts:
        """These prompts in another dtype or on another device, as `torch.Tensor.to` takes them."""
        pooled = None if self.pooled is None else self.pooled.to(*where)
        return Prompts(self.embeds.to(*where), pooled, self.padding)

    def arguments(self, null: Prompts) -> dict[str, torch.Tensor]:
        """These prompts and the unconditional ones by the pipeline's own argument names.

        Raises:
            ValueError: the two are not of one shape, as pipelines want them.
        """
        if self.embeds.shape != null.embeds.shape:
            shapes = f"{tuple(self.embeds.shape)} and {tuple(null.embeds.shape)}"
            raise ValueError(f"prompt and negative embeds must be of one shape, not {shapes}")
        found = {"prompt_embeds": self.embeds, "negative_prompt_embeds": null.embeds}
        if any(self.padding):
            positions, dimensions = self.padding
            found = {k: F.pad(v, (0, dimensions, 0, positions)) for k, v in found.items()}
        if self.pooled is not None and null.pooled is not None:
            found["pooled_prompt_embeds"] = self.pooled
            found["negative_pooled_prompt_embeds"] = null.pooled
        return found


@dataclass(frozen=True)
class Statistics:
    """Centre and spread of a set of embeds, each of one embed's own shape.

    Attributes:
        mean: the mean, also the value where `constant`.
        spread: the standard deviation, floored and clipped; one where `constant`.
        constant: bool, true where the embeds hardly vary.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    constant: torch.Tensor

    @classmethod
    def of(cls, embeds: torch.Tensor) -> Statistics:
        """The statistics of embeds (N, ...) over their first axis; N = 1 is all constant."""
        return cls.of_blocks(lambda: embeds.split(BLOCK_ROWS))

    @classmethod
    def of_blocks(cls, blocks: Callable[[], Iterable[torch.Tensor]]) -> Statistics:
        """The statistics of embeds that come in blocks (n, ...), which are asked for twice.

        Blocks are taken in float32, their sums in float64: how embeds are divided into blocks
        changes nothing that float32 could show.
        """
        count, total = 0, torch.zeros(())
        for block in blocks():
            count, total = count + len(block), total + block.float().sum(0, dtype=torch.float64)
        centre = total / count
        square = sum((b.double() - centre).square().sum(0) for b in blocks()) / count
        mean, spread = centre.float(), torch.as_tensor(square).sqrt().float()
        own = spread.square().mean().sqrt()
        constant = spread <= CONSTANT * own
        spread = spread.clamp(FLOOR * own, CEILING * own)
        return cls(mean, torch.where(constant, torch.ones_like(spread), spread), constant)

    def standardise(self, embeds: torch.Tensor) -> torch.Tensor:
        """(embeds - mean) / spread; zero where constant."""
        return ((embeds - self.mean) / self.spread).masked_fill(self.constant, 0.0)

    def restore(self, standardised: torch.Tensor) -> torch.Tensor:
        """What `standardise` was given, with the stored value where constant."""
        return self.mean + (standardised * self.spread).masked_fill(self.constant, 0.0)


class PromptSpace:
    """The text side of a pipeline, asked through its own `encode_prompt`.

    Any pipeline that answers with embeds and unconditional embeds, as Stable Diffusion 1 and 2
    do, or with pooled ones besides, as SDXL, SD3 and Stable Cascade do. Where the pipeline fills
    up what its CLIP encoders give with zeros, `Prompts.padding` says by how much.

    Args:
        pipeline: a diffusers pipeline; its UNet and VAE are not used and may be None.
        base: the hub id or folder that it came from; the pipeline's own by default.
    """

    def __init__(self, pipeline: Any, base: str | None = None) -> None:
        self._pipeline = pipeline
        self.base = base or str(pipeline.config.get("_name_or_path", ""))
        self._filled: tuple[int, int] | None = None
        empty, null = self._encode([""])
        # Zeros at the end of every position or dimension were appended by the pipeline. The
        # unconditional embeds cannot tell: SDXL's are zeros throughout.
        self._filled = _filled(empty.embeds)
        self.unconditional = self._cut(null)

    @classmethod
    def from_pretrained(cls, base: str, **options: Any) -> PromptSpace:
        """Loads only a base's text side; T5 is never loaded.

        Args:
            base: a short name, a folder or a hub id of a pipeline.
            options: for `DiffusionPipeline.from_pretrained`.

        Raises:
            OSError: there is no such base.
            ValueError: it reads no CLIP text encoder.
        """
        from align.bases import load_text_side

        return cls(load_text_side(base, **options), base)

    def _encode(self, captions: Sequence[str]) -> tuple[Prompts, Prompts]:
        embeds, null, pooled, null_pooled = ask(self._pipeline, captions)
        return Prompts(embeds, pooled), Prompts(null, null_pooled)

    def _cut(self, prompts: Prompts) -> Prompts:
        assert self._filled is not None
        length, width = self._filled
        whole = prompts.embeds.shape[1:]
        embeds = prompts.embeds[:, :length, :width].float().cpu()
        pooled = None if prompts.pooled is None else prompts.pooled.float().cpu()
        return Prompts(embeds, pooled, (whole[0] - length, whole[1] - width))

    def encode(self, captions: Sequence[str], batch_size: int = 64) -> Prompts:
        """Prompt embeds of captions, on the CPU in float32.

        Of a caption of more tokens than CLIP reads, it leaves the rest out; that is warned of.

        Args:
            captions: one or several; "" is a caption too, and says nothing.
            batch_size: captions encoded at once.

        Raises:
            ValueError: no captions are given, or batches hold none.
        """
        if isinstance(captions, str):
            captions = [captions]
        if not captions:
            raise ValueError("no captions to encode")
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, not {batch_size}")
        self._tell_of_long(captions)
        parts = [
            self._cut(self._encode(captions[i : i + batch_size])[0])
            for i in range(0, len(captions), batch_size)
        ]
        return stacked(parts)

    @property
    def _tokenizer(self) -> Any:
        return getattr(self._pipeline, "tokenizer", None) or self._pipeline.tokenizer_2

    def _tell_of_long(self, captions: Sequence[str]) -> None:
        most = self._tokenizer.model_max_length
        tokens = self._tokenizer(list(captions), verbose=False)["input_ids"]
        long = [text for text, ids in zip(captions, tokens, strict=True) if len(ids) > most]
        if long:
            warnings.warn(
                f"{len(long)} of {len(captions)} captions have more than {most} tokens, and CLIP "
                f"reads no more of them; the first: {shorten(long[0], 80)!r}",
                stacklevel=3,
            )

    def lengths(self, captions: Sequence[str]) -> torch.Tensor:
        """Positions (N,) that captions fill, start and end included; what follows is padding."""
        most = self.unconditional.embeds.shape[1]
        found = self._tokenizer(list(captions), truncation=True, max_length=most)["input_ids"]
        return torch.tensor([len(ids) for ids in found])


def stacked(parts: Sequence[Prompts]) -> Prompts:
    """Several sets of prompts of one space as one."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    embeds = torch.cat([part.embeds for part in parts])
    return Prompts(embeds, torch.cat(pooled) if pooled else None, parts[0].padding)


def _filled(embeds: torch.Tensor) -> tuple[int, int]:
    """Positions and dimensions of embeds (N, L, D) up to the last that is not all zeros."""
    used = embeds.abs().amax(0)
    length, width = (int(used.amax(axis).nonzero().max()) + 1 for axis in (1, 0))
    return length, width
