"""Prompt space of a pipeline: prompt embeds computed by its own text encoders."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from inspect import Parameter, signature
from textwrap import shorten
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from align.prompts.embeds import PromptEmbeds, SpaceShape, stack_prompts
from align.prompts.pipelines import filter_kwargs


class PromptSpace:
    """Text encoders of a pipeline, called through its own `encode_prompt`.

    Supports pipelines that return prompt embeds and unconditional embeds, like Stable Diffusion 1
    and 2, and those that also return pooled embeds, like SDXL, SD3 and Stable Cascade. If the
    pipeline pads the CLIP embeds with zeros, `PromptEmbeds.padding` stores by how much.

    Args:
        pipeline: Diffusers pipeline; its UNet and VAE are not used and may be None.
        base_model: Folder or Hub id of the pipeline. Defaults to the one it was loaded from.

    Attributes:
        unconditional: Unconditional embeds (one prompt).
    """

    def __init__(self, pipeline: Any, base_model: str | None = None) -> None:
        self._pipeline = pipeline
        self.base_model = base_model or str(pipeline.config.get("_name_or_path", ""))
        self._filled_shape: tuple[int, int] | None = None
        empty, unconditional = self._encode([""])
        # Trailing zero positions and dimensions were appended by the pipeline. The unconditional
        # embeds cannot be used for this: SDXL's are all zeros.
        self._filled_shape = _filled_shape(empty.embeds)
        self.unconditional = self._crop(unconditional)

    @classmethod
    def from_pretrained(cls, base_model: str, **options: Any) -> PromptSpace:
        """Load only the CLIP text encoders of a pipeline; T5 is never loaded.

        Args:
            base_model: Short name, folder or Hub id of a pipeline.
            **options: Keyword arguments of `DiffusionPipeline.from_pretrained`.

        Raises:
            OSError: If there is no such pipeline.
            ValueError: If it has no CLIP text encoder.
        """
        from align.prompts.loading import load_text_side

        return cls(load_text_side(base_model, **options), base_model)

    @property
    def shape(self) -> SpaceShape:
        """Shape of the pipeline's prompt embeds."""
        unconditional = self.unconditional
        pooled = 0 if unconditional.pooled is None else unconditional.pooled.shape[-1]
        length, width = unconditional.embeds.shape[1:]
        return SpaceShape(self.base_model, length, width, pooled, *unconditional.padding)

    def _encode(self, captions: Sequence[str]) -> tuple[PromptEmbeds, PromptEmbeds]:
        embeds, unconditional, pooled, unconditional_pooled = encode_captions(
            self._pipeline, captions
        )
        return PromptEmbeds(embeds, pooled), PromptEmbeds(unconditional, unconditional_pooled)

    def _crop(self, prompts: PromptEmbeds) -> PromptEmbeds:
        assert self._filled_shape is not None
        length, width = self._filled_shape
        whole = prompts.embeds.shape[1:]
        embeds = prompts.embeds[:, :length, :width].float().cpu()
        pooled = None if prompts.pooled is None else prompts.pooled.float().cpu()
        return PromptEmbeds(embeds, pooled, (whole[0] - length, whole[1] - width))

    def encode(self, captions: Sequence[str], batch_size: int = 64) -> PromptEmbeds:
        """Encode captions into prompt embeds, on the CPU in float32.

        Captions longer than CLIP's maximum length are truncated, with a warning.

        Args:
            captions: One caption or several; "" is valid.
            batch_size: Number of captions encoded at once.

        Raises:
            ValueError: If no captions are given, or the batch size is below 1.
        """
        if isinstance(captions, str):
            captions = [captions]
        if not captions:
            raise ValueError("no captions to encode")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._warn_truncated(captions)
        parts = [
            self._crop(self._encode(captions[i : i + batch_size])[0])
            for i in range(0, len(captions), batch_size)
        ]
        return stack_prompts(parts)

    @property
    def _tokenizer(self) -> Any:
        return getattr(self._pipeline, "tokenizer", None) or self._pipeline.tokenizer_2

    def _warn_truncated(self, captions: Sequence[str]) -> None:
        maximum = self._tokenizer.model_max_length
        tokens = self._tokenizer(list(captions), verbose=False)["input_ids"]
        long = [text for text, ids in zip(captions, tokens, strict=True) if len(ids) > maximum]
        if long:
            warnings.warn(
                f"{len(long)} of {len(captions)} captions have more than {maximum} tokens and are "
                f"truncated; the first: {shorten(long[0], 80)!r}",
                stacklevel=3,
            )

    def token_lengths(self, captions: Sequence[str]) -> torch.Tensor:
        """Return the number of tokens of N captions (N,), start and end tokens included."""
        maximum = self.unconditional.embeds.shape[1]
        found = self._tokenizer(list(captions), truncation=True, max_length=maximum)["input_ids"]
        return torch.tensor([len(ids) for ids in found])


def _filled_shape(embeds: torch.Tensor) -> tuple[int, int]:
    """Return the numbers of positions and dimensions of embeds (N, L, D) up to trailing zeros."""
    used = embeds.abs().amax(0)
    length, width = (int(used.amax(axis).nonzero().max()) + 1 for axis in (1, 0))
    return length, width


CaptionEncoding = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]


@torch.no_grad()
def encode_captions(pipeline: Any, captions: Sequence[str]) -> CaptionEncoding:
    """Encode N captions with a pipeline's `encode_prompt`.

    Arguments that `encode_prompt` shares with the pipeline's call get the call's defaults, so that
    the embeds are those that the call would compute.

    Args:
        pipeline: Diffusers pipeline with its text encoders.
        captions: N captions.

    Returns:
        Embeds and unconditional embeds (N, L, D); pooled and unconditional pooled embeds (N, P),
        or None.

    Raises:
        ValueError: If the pipeline cannot encode captions as it is loaded, or returns no embeds.
    """
    name = type(pipeline).__name__
    try:
        if hasattr(pipeline, "encode_prompt"):
            outputs = _call_encode_prompt(pipeline, pipeline.encode_prompt, captions, True)
        elif hasattr(pipeline, "_encode_prompt"):
            # InstructPix2Pix returns its embeds with guidance in an order of its own.
            empty = [""] * len(captions)
            each = (
                _call_encode_prompt(pipeline, pipeline._encode_prompt, c, False)
                for c in (captions, empty)
            )
            outputs = tuple(each)
        else:
            raise ValueError(f"{name} has no encode_prompt, so its embeds cannot be computed")
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"{name}{_missing_encoders_note(pipeline)} cannot encode a caption: {error}"
        ) from error
    return _order_outputs(outputs, name)


def _call_encode_prompt(
    pipeline: Any, encode: Any, captions: Sequence[str], do_classifier_free_guidance: bool
) -> Any:
    defaults = {
        name: parameter.default
        for name, parameter in signature(type(pipeline).__call__).parameters.items()
        if parameter.default is not Parameter.empty
    }
    given = {
        "prompt": list(captions),
        "batch_size": len(captions),
        "device": pipeline.device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": do_classifier_free_guidance,
    }
    with _silence_loggers(encode.__module__, PreTrainedTokenizerBase.__module__):
        return encode(**filter_kwargs(encode, defaults | given))


@contextlib.contextmanager
def _silence_loggers(*modules: str) -> Iterator[None]:
    """Suppress the tokenizers' warnings of long captions, which print the padding as well."""
    loggers = [logging.getLogger(name) for name in modules]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _order_outputs(outputs: Any, name: str) -> CaptionEncoding:
    """Order the outputs of `encode_prompt`, which pipelines return in different orders.

    Embeds have several positions; pooled embeds have none, or one in Stable Cascade.
    """
    found = [each for each in outputs if isinstance(each, torch.Tensor)]
    embeds = [each for each in found if each.ndim == 3 and each.shape[1] > 1]
    pooled = [each.flatten(1) for each in found if each.ndim == 2 or each.shape[1] == 1]
    if len(embeds) != 2 or len(pooled) not in (0, 2):
        shapes = ", ".join(str(tuple(each.shape)) for each in found) or "nothing"
        raise ValueError(
            f"encode_prompt of {name} must return embeds and unconditional embeds, but returned "
            f"{shapes}"
        )
    return embeds[0], embeds[1], *(pooled or (None, None))


def _missing_encoders_note(pipeline: Any) -> str:
    parts = [k for k, v in vars(pipeline).items() if k.startswith("text_encoder") and v is None]
    return f" without {' and '.join(parts)}" if parts else ""
