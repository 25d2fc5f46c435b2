"""Blends of prompts: sounds with each other, and sound with text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from align.prompts.embeds import Prompts

BLENDS = ("interpolate", "concatenate", "add")
WEIGHT = 0.5  # of the text


def normalized_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights of several recordings as shares that sum to one; equal ones where none are given.

    Raises:
        ValueError: there are not `count` weights, one is negative or no finite number, or all are
            zero.
    """
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count:
        raise ValueError(
            f"there are {count} recordings and {len(given)} weights: give one for each"
        )
    # NaN is below nothing, and the sum of what is finite need not be.
    if not math.isfinite(sum(given)) or min(given) < 0 or not sum(given):
        raise ValueError(
            f"the weights of the recordings are numbers from 0 on, not all 0, and not {given}"
        )
    return [weight / sum(given) for weight in given]


def weigh(prompts: Prompts, weights: Sequence[float]) -> Prompts:
    """One prompt from N: their mean by weight.

    Args:
        prompts: N.
        weights: N numbers from 0 on, not all 0; they are divided by their sum.

    Raises:
        ValueError: the weights are none of these.
    """
    share = torch.tensor(normalized_weights(weights, len(prompts))).to(prompts.embeds)
    embeds = torch.einsum("n,nld->ld", share, prompts.embeds)[None]
    pooled = None if prompts.pooled is None else (share @ prompts.pooled)[None]
    return Prompts(embeds, pooled, prompts.padding)


def blend(
    sound: Prompts, text: Prompts, how: str, weight: float | None, centre: Prompts
) -> Prompts:
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
    if how not in BLENDS:
        raise ValueError(f"there is no blend {how!r}; there are: {', '.join(BLENDS)}")
    text = matched(text, sound, "text", same_length=how != "concatenate")
    if how == "concatenate":
        if weight is not None:
            raise ValueError("concatenation takes no weight: leave it out, or interpolate or add")
        return concatenate(sound, text)
    share = WEIGHT if weight is None else float(weight)
    if not math.isfinite(share):
        raise ValueError(f"the weight of the text is a number, not {share}")
    if how == "interpolate":
        return _each(lambda s, t, c: torch.lerp(s, t, share), sound, text, centre)
    return _each(lambda s, t, c: s + share * (t - c), sound, text, centre)


def concatenate(first: Prompts, second: Prompts) -> Prompts:
    """Prompts one behind the other along the sequence, their pooled embeds averaged."""
    embeds = torch.cat([first.embeds, second.embeds], 1)
    pooled = None
    if first.pooled is not None and second.pooled is not None:
        pooled = torch.lerp(first.pooled, second.pooled, 0.5)
    return Prompts(embeds, pooled, first.padding)


def matched(given: Any, sound: Prompts, what: str, *, same_length: bool = True) -> Prompts:
    """Given prompts as N beside N of the encoder's, in their dtype and on their device.

    Args:
        given: N `Prompts`, or one for all.
        sound: N prompts.
        what: how a message calls the given ones.
        same_length: whether they must have as many positions.

    Raises:
        ValueError: they are no prompts, or of another space, length or number.
    """
    if not isinstance(given, Prompts):
        kind = type(given).__name__
        raise ValueError(f"the {what} is given as prompts, not as {kind}: {_ENCODE}")
    if (given.pooled is None) != (sound.pooled is None):
        there = "has no" if given.pooled is None else "has"
        raise ValueError(f"the {what} {there} pooled embeds, unlike this prompt space: {_ENCODE}")
    ours, theirs = (_widths(prompts) for prompts in (sound, given))
    if ours != theirs:
        raise ValueError(f"the {what} is {theirs} wide and this prompt space {ours}: {_ENCODE}")
    positions = (sound.embeds.shape[1], given.embeds.shape[1])
    if same_length and positions[0] != positions[1]:
        raise ValueError(
            f"the {what} has {positions[1]} positions and the sound {positions[0]}: "
            "only a concatenation takes any number"
        )
    if len(given) not in (1, len(sound)):
        raise ValueError(f"give one {what} for all, or {len(sound)}, not {len(given)}")
    repeated = given.rows(torch.arange(len(sound)) % len(given))
    return repeated.to(sound.embeds.device, sound.embeds.dtype)


_ENCODE = "encode it by PromptSpace with the text encoders of the same base"


def _widths(prompts: Prompts) -> str:
    pooled = "" if prompts.pooled is None else f" + {prompts.pooled.shape[-1]} pooled"
    return f"{prompts.embeds.shape[-1]}{pooled}"


def _each(rule, *prompts: Prompts) -> Prompts:  # type: ignore[no-untyped-def]
    """A rule applied to the embeds of prompts, and to their pooled embeds."""
    pooled = [p.pooled for p in prompts]
    whole = None if pooled[0] is None else rule(*pooled)
    return Prompts(rule(*(p.embeds for p in prompts)), whole, prompts[0].padding)
