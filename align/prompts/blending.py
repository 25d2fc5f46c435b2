"""Combine prompt embeds: several clips, or audio and text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from align.prompts.embeds import PromptEmbeds

BLEND_MODES = ("interpolate", "concatenate", "add")
DEFAULT_TEXT_WEIGHT = 0.5


def normalized_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Normalize the weights of several clips to a sum of 1.

    Args:
        weights: One non-negative weight per clip; None for equal weights.
        count: Number of clips.

    Raises:
        ValueError: If there are not `count` weights, one is negative or not finite, or all are 0.
    """
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count:
        raise ValueError(
            f"there are {count} clips and {len(given)} weights: give one weight per clip"
        )
    # NaN passes a comparison with 0, and a sum of finite numbers may overflow.
    if not math.isfinite(sum(given)) or min(given) < 0 or not sum(given):
        raise ValueError(
            f"the weights of the clips must be finite, at least 0 and not all 0, not {given}"
        )
    return [weight / sum(given) for weight in given]


def weighted_mean(prompts: PromptEmbeds, weights: Sequence[float]) -> PromptEmbeds:
    """Return the weighted mean of N prompts as one prompt.

    Args:
        prompts: N prompts.
        weights: N non-negative numbers, not all 0; they are normalized to a sum of 1.

    Raises:
        ValueError: If the weights are invalid.
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
    """Combine audio and text into one prompt.

    - "interpolate": (1 - text_weight) audio + text_weight text.
    - "concatenate": the positions of the audio followed by those of the text; the pipeline
      attends to both. Pooled embeds, which have no positions, are averaged.
    - "add": audio + text_weight (text - center). Subtracting the center leaves what distinguishes
      the text from an average caption, so that the sum keeps the norm of one prompt.

    Args:
        audio: N audio prompts.
        text: N text prompts, or one for all.
        mode: One of `BLEND_MODES`.
        text_weight: Weight of the text, 0.5 by default; must be None for "concatenate".
        center: N copies of the mean of the space's captions.

    Raises:
        ValueError: If there is no such mode, the weight is not finite, or the prompts do not
            match.
    """
    if mode not in BLEND_MODES:
        raise ValueError(f"there is no blend mode {mode!r}; there are: {', '.join(BLEND_MODES)}")
    text = match_prompts(text, audio, "text", same_length=mode != "concatenate")
    if mode == "concatenate":
        if text_weight is not None:
            raise ValueError("concatenate takes no weight: leave it out, or use interpolate or add")
        return concatenate(audio, text)
    alpha = DEFAULT_TEXT_WEIGHT if text_weight is None else float(text_weight)
    if not math.isfinite(alpha):
        raise ValueError(f"the weight of the text must be a finite number, not {alpha}")
    if mode == "interpolate":
        return _apply(lambda s, t, c: torch.lerp(s, t, alpha), audio, text, center)
    return _apply(lambda s, t, c: s + alpha * (t - c), audio, text, center)


def concatenate(first: PromptEmbeds, second: PromptEmbeds) -> PromptEmbeds:
    """Concatenate prompts along the sequence and average their pooled embeds."""
    embeds = torch.cat([first.embeds, second.embeds], 1)
    pooled = None
    if first.pooled is not None and second.pooled is not None:
        pooled = torch.lerp(first.pooled, second.pooled, 0.5)
    return PromptEmbeds(embeds, pooled, first.padding)


def match_prompts(
    given: Any, audio: PromptEmbeds, name: str, *, same_length: bool = True
) -> PromptEmbeds:
    """Match given prompts to N audio prompts in number, dtype and device.

    Args:
        given: N `PromptEmbeds`, or one for all.
        audio: N audio prompts.
        name: Name of the given prompts in messages.
        same_length: Whether both must have the same number of positions.

    Raises:
        ValueError: If they are not prompts, or of another space, length or number.
    """
    if not isinstance(given, PromptEmbeds):
        kind = type(given).__name__
        raise ValueError(f"the {name} must be given as PromptEmbeds, not {kind}: {_ENCODE_HINT}")
    if (given.pooled is None) != (audio.pooled is None):
        there = "has no" if given.pooled is None else "has"
        raise ValueError(
            f"the {name} {there} pooled embeds, unlike this prompt space: {_ENCODE_HINT}"
        )
    ours, theirs = (_widths(prompts) for prompts in (audio, given))
    if ours != theirs:
        raise ValueError(
            f"the {name} has width {theirs} and this prompt space {ours}: {_ENCODE_HINT}"
        )
    positions = (audio.embeds.shape[1], given.embeds.shape[1])
    if same_length and positions[0] != positions[1]:
        raise ValueError(
            f"the {name} has {positions[1]} positions and the audio {positions[0]}: "
            "only concatenate accepts different lengths"
        )
    if len(given) not in (1, len(audio)):
        raise ValueError(f"give one {name} for all, or {len(audio)}, not {len(given)}")
    repeated = given.select(torch.arange(len(audio)) % len(given))
    return repeated.to(audio.embeds.device, audio.embeds.dtype)


_ENCODE_HINT = "encode it by PromptSpace with the text encoders of the same base model"


def _widths(prompts: PromptEmbeds) -> str:
    pooled = "" if prompts.pooled is None else f" + {prompts.pooled.shape[-1]} pooled"
    return f"{prompts.embeds.shape[-1]}{pooled}"


def _apply(rule, *prompts: PromptEmbeds) -> PromptEmbeds:  # type: ignore[no-untyped-def]
    """Apply a function to the embeds of prompts, and to their pooled embeds."""
    pooled = [p.pooled for p in prompts]
    whole = None if pooled[0] is None else rule(*pooled)
    return PromptEmbeds(rule(*(p.embeds for p in prompts)), whole, prompts[0].padding)
