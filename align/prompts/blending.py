"""Blends of prompts: sounds with each other, and sound with text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from align.prompts.embeds import PromptEmbeds

BLEND_MODES = ("interpolate", "concatenate", "add")
DEFAULT_TEXT_WEIGHT = 0.5  # of the text


def normalized_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights of several recordings as shares that sum to one; equal ones where none are given.

    Raises:
        ValueError: there are not `count` weights, one is negative or no finite number, or all are
            zero.
    """
    given = [1.0] * count if weights is None else [float(text_weight) for text_weight in weights]
    if len(given) != count:
        raise ValueError(
            f"there are {count} recordings and {len(given)} weights: give one for each"
        )
    # NaN is below nothing, and the sum of what is finite need not be.
    if not math.isfinite(sum(given)) or min(given) < 0 or not sum(given):
        raise ValueError(
            f"the weights of the recordings are numbers from 0 on, not all 0, and not {given}"
        )
    return [text_weight / sum(given) for text_weight in given]


def weighted_mean(prompts: PromptEmbeds, weights: Sequence[float]) -> PromptEmbeds:
    """One prompt from N: their mean by weight.

    Args:
        prompts: N.
        weights: N numbers from 0 on, not all 0; they are divided by their sum.

    Raises:
        ValueError: the weights are none of these.
    """
    normalized = torch.tensor(normalized_weights(weights, len(prompts))).to(prompts.embeds)
    embeds = torch.einsum("n,nld->ld", normalized, prompts.embeds)[None]
    pooled = None if prompts.pooled is None else (normalized @ prompts.pooled)[None]
    return PromptEmbeds(embeds, pooled, prompts.padding)


def blend(
    audio: PromptEmbeds,
    text: PromptEmbeds,
    mode: str,
    text_weight: float | None,
    center: PromptEmbeds,
) -> PromptEmbeds:
    """Sound and text as one prompt.

    - "interpolate": (1 - weight) sound + weight text.
    - "concatenate": the sound's positions, then the text's; the pipeline attends to both. Pooled
      embeds, which have no positions, are their mean.
    - "add": sound + weight (text - centre), so that the text adds what it says beyond an average
      caption and the sum keeps the size of one prompt.

    Args:
        sound: N prompts.
        text: N prompts, or one for all.
        how: one of BLENDS.
        weight: of the text; 0.5 by default. Concatenation takes none.
        centre: N times the mean of the space's captions.

    Raises:
        ValueError: there is no such blend, the weight is no number, or the two do not belong
            together.
    """
    if mode not in BLEND_MODES:
        raise ValueError(f"there is no blend {mode!r}; there are: {', '.join(BLEND_MODES)}")
    text = match_prompts(text, audio, "text", same_length=mode != "concatenate")
    if mode == "concatenate":
        if text_weight is not None:
            raise ValueError("concatenation takes no weight: leave it out, or interpolate or add")
        return concatenate(audio, text)
    alpha = DEFAULT_TEXT_WEIGHT if text_weight is None else float(text_weight)
    if not math.isfinite(alpha):
        raise ValueError(f"the weight of the text is a number, not {alpha}")
    if mode == "interpolate":
        return _apply(lambda s, t, c: torch.lerp(s, t, alpha), audio, text, center)
    return _apply(lambda s, t, c: s + alpha * (t - c), audio, text, center)


def concatenate(first: PromptEmbeds, second: PromptEmbeds) -> PromptEmbeds:
    """Prompts one behind the other along the sequence, their pooled embeds averaged."""
    embeds = torch.cat([first.embeds, second.embeds], 1)
    pooled = None
    if first.pooled is not None and second.pooled is not None:
        pooled = torch.lerp(first.pooled, second.pooled, 0.5)
    return PromptEmbeds(embeds, pooled, first.padding)


def match_prompts(
    given: Any, audio: PromptEmbeds, name: str, *, same_length: bool = True
) -> PromptEmbeds:
    """Given prompts as N beside N of the encoder's, in their dtype and on their device.

    Args:
        given: N `PromptEmbeds`, or one for all.
        sound: N prompts.
        what: how a message calls the given ones.
        same_length: whether they must have as many positions.

    Raises:
        ValueError: they are no prompts, or of another space, length or number.
    """
    if not isinstance(given, PromptEmbeds):
        kind = type(given).__name__
        raise ValueError(f"the {name} is given as prompts, not as {kind}: {_ENCODE_HINT}")
    if (given.pooled is None) != (audio.pooled is None):
        there = "has no" if given.pooled is None else "has"
        raise ValueError(
            f"the {name} {there} pooled embeds, unlike this prompt space: {_ENCODE_HINT}"
        )
    ours, theirs = (_widths(prompts) for prompts in (audio, given))
    if ours != theirs:
        raise ValueError(
            f"the {name} is {theirs} wide and this prompt space {ours}: {_ENCODE_HINT}"
        )
    positions = (audio.embeds.shape[1], given.embeds.shape[1])
    if same_length and positions[0] != positions[1]:
        raise ValueError(
            f"the {name} has {positions[1]} positions and the sound {positions[0]}: "
            "only a concatenation takes any number"
        )
    if len(given) not in (1, len(audio)):
        raise ValueError(f"give one {name} for all, or {len(audio)}, not {len(given)}")
    repeated = given.select(torch.arange(len(audio)) % len(given))
    return repeated.to(audio.embeds.device, audio.embeds.dtype)


_ENCODE_HINT = "encode it by PromptSpace with the text encoders of the same base"


def _widths(prompts: PromptEmbeds) -> str:
    pooled = "" if prompts.pooled is None else f" + {prompts.pooled.shape[-1]} pooled"
    return f"{prompts.embeds.shape[-1]}{pooled}"


def _apply(rule, *prompts: PromptEmbeds) -> PromptEmbeds:  # type: ignore[no-untyped-def]
    """A rule applied to the embeds of prompts, and to their pooled embeds."""
    pooled = [p.pooled for p in prompts]
    whole = None if pooled[0] is None else rule(*pooled)
    return PromptEmbeds(rule(*(p.embeds for p in prompts)), whole, prompts[0].padding)
