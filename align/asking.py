"""What a pipeline's own text encoders answer to captions, in whatever form it gives the answer."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from align.keywords import of_those

Answer = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]


@torch.no_grad()
def ask(pipeline: Any, captions: Sequence[str]) -> Answer:
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
            answer = _told(pipeline, pipeline.encode_prompt, captions, True)
        elif hasattr(pipeline, "_encode_prompt"):
            # InstructPix2Pix: what it answers with guidance is in an order of its own.
            empty = [""] * len(captions)
            each = (_told(pipeline, pipeline._encode_prompt, c, False) for c in (captions, empty))
            answer = tuple(each)
        else:
            raise ValueError(f"{name} has no encode_prompt that could be asked for embeds")
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{name}{_absent(pipeline)} cannot encode a caption: {error}") from error
    return _sorted(answer, name)


def _told(pipeline: Any, encode: Any, captions: Sequence[str], guided: bool) -> Any:
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
        "do_classifier_free_guidance": guided,
    }
    with _quiet(encode.__module__, PreTrainedTokenizerBase.__module__):
        return encode(**of_those(encode, defaults | given))


@contextlib.contextmanager
def _quiet(*modules: str) -> Iterator[None]:
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


def _sorted(answer: Any, name: str) -> Answer:
    """Orders differ: embeds have positions, pooled ones have none, or one as Stable Cascade's."""
    found = [each for each in answer if isinstance(each, torch.Tensor)]
    embeds = [each for each in found if each.ndim == 3 and each.shape[1] > 1]
    pooled = [each.flatten(1) for each in found if each.ndim == 2 or each.shape[1] == 1]
    if len(embeds) != 2 or len(pooled) not in (0, 2):
        shapes = ", ".join(str(tuple(each.shape)) for each in found) or "nothing"
        raise ValueError(
            f"{name} gives no embeds with and without a caption when it is asked, but {shapes}"
        )
    return embeds[0], embeds[1], *(pooled or (None, None))


def _absent(pipeline: Any) -> str:
    parts = [k for k, v in vars(pipeline).items() if k.startswith("text_encoder") and v is None]
    return f" without {' and '.join(parts)}" if parts else ""
