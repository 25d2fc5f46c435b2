"""The prompt space of a pipeline: the embeds that its own text encoders give, and their spread."""

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
    """The text side of a pipeline, asked through its own `encode_prompt`.

    Any pipeline that answers with embeds and unconditional embeds, as Stable Diffusion 1 and 2
    do, or with pooled ones besides, as SDXL, SD3 and Stable Cascade do. Where the pipeline fills
    up what its CLIP encoders give with zeros, `PromptEmbeds.padding` says by how much.

    Args:
        pipeline: a diffusers pipeline; its UNet and VAE are not used and may be None.
        base: the hub id or folder that it came from; the pipeline's own by default.
    """

    def __init__(self, pipeline: Any, base_model: str | None = None) -> None:
        self._pipeline = pipeline
        self.base_model = base_model or str(pipeline.config.get("_name_or_path", ""))
        self._filled_shape: tuple[int, int] | None = None
        empty, unconditional = self._encode([""])
        # Zeros at the end of every position or dimension were appended by the pipeline. The
        # unconditional embeds cannot tell: SDXL's are zeros throughout.
        self._filled_shape = _filled_shape(empty.embeds)
        self.unconditional = self._crop(unconditional)

    @classmethod
    def from_pretrained(cls, base_model: str, **options: Any) -> PromptSpace:
        """Loads only a base's text side; T5 is never loaded.

        Args:
            base: a short name, a folder or a hub id of a pipeline.
            options: for `DiffusionPipeline.from_pretrained`.

        Raises:
            OSError: there is no such base.
            ValueError: it reads no CLIP text encoder.
        """
        from align.prompts.loading import load_text_side

        return cls(load_text_side(base_model, **options), base_model)

    @property
    def shape(self) -> SpaceShape:
        """The sizes of the pipeline's prompt embeds."""
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
                f"{len(long)} of {len(captions)} captions have more than {maximum} tokens, and CLIP "
                f"reads no more of them; the first: {shorten(long[0], 80)!r}",
                stacklevel=3,
            )

    def token_lengths(self, captions: Sequence[str]) -> torch.Tensor:
        """Positions (N,) that captions fill, start and end included; what follows is padding."""
        maximum = self.unconditional.embeds.shape[1]
        found = self._tokenizer(list(captions), truncation=True, max_length=maximum)["input_ids"]
        return torch.tensor([len(ids) for ids in found])


def _filled_shape(embeds: torch.Tensor) -> tuple[int, int]:
    """Positions and dimensions of embeds (N, L, D) up to the last that is not all zeros."""
    used = embeds.abs().amax(0)
    length, width = (int(used.amax(axis).nonzero().max()) + 1 for axis in (1, 0))
    return length, width


CaptionEncoding = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]


@torch.no_grad()
def encode_captions(pipeline: Any, captions: Sequence[str]) -> CaptionEncoding:
    """The embeds of N captions as a pipeline's `encode_prompt` gives them.

    Everything that it can be told and that the pipeline's call has a default for is told that
    default, so that the answer is what the call would make of the captions.

    Returns:
        embeds and unconditional embeds (N, L, D); pooled and unconditional pooled (N, P), or None.

    Raises:
        ValueError: the pipeline cannot encode a caption as it is loaded, or gives no such answer.
    """
    name = type(pipeline).__name__
    try:
        if hasattr(pipeline, "encode_prompt"):
            outputs = _call_encode_prompt(pipeline, pipeline.encode_prompt, captions, True)
        elif hasattr(pipeline, "_encode_prompt"):
            # InstructPix2Pix: what it answers with guidance is in an order of its own.
            empty = [""] * len(captions)
            each = (
                _call_encode_prompt(pipeline, pipeline._encode_prompt, c, False)
                for c in (captions, empty)
            )
            outputs = tuple(each)
        else:
            raise ValueError(f"{name} has no encode_prompt that could be asked for embeds")
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
    """Without warnings of long captions: for one in a batch, all of the padding is printed."""
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
    """Orders differ: embeds have positions, pooled ones have none, or one as Stable Cascade's."""
    found = [each for each in outputs if isinstance(each, torch.Tensor)]
    embeds = [each for each in found if each.ndim == 3 and each.shape[1] > 1]
    pooled = [each.flatten(1) for each in found if each.ndim == 2 or each.shape[1] == 1]
    if len(embeds) != 2 or len(pooled) not in (0, 2):
        shapes = ", ".join(str(tuple(each.shape)) for each in found) or "nothing"
        raise ValueError(
            f"{name} gives no embeds with and without a caption when it is asked, but {shapes}"
        )
    return embeds[0], embeds[1], *(pooled or (None, None))


def _missing_encoders_note(pipeline: Any) -> str:
    parts = [k for k, v in vars(pipeline).items() if k.startswith("text_encoder") and v is None]
    return f" without {' and '.join(parts)}" if parts else ""
