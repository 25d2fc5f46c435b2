"""From recordings to a pipeline's keyword arguments: blends, negatives, and what fits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from align.audio import AudioError
from align.blending import blend as blended
from align.blending import concatenate, matched, weigh
from align.fitting import check_prompt
from align.pipelines import Reader
from align.prompts import Prompts

if TYPE_CHECKING:
    from align.encoder import AudioPromptEncoder


class Prompting:
    """What lets an encoder drive a pipeline."""

    def prompt(
        self: Any,  # the encoder
        recordings: Any,
        *,
        weights: Sequence[float] | None = None,
        text: Prompts | None = None,
        blend: str = "interpolate",
        weight: float | None = None,
        negative: Any = None,
        pipeline: Any = None,
        space: str | None = None,
        sampling_rate: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, torch.Tensor]:
        """The keyword arguments that make a diffusers pipeline draw these recordings.

        Args:
            recordings: one recording or a list of N: paths, bytes, file objects, arrays.
            weights: N; the recordings become one prompt, their mean by weight.
            text: what `PromptSpace.encode` gave, one prompt for all or one for each.
            blend: how the text is blended in: "interpolate", "concatenate" or "add".
            weight: of the text, 0.5 by default; concatenation takes none.
            negative: what guidance leads away from: a recording or one for each, or what
                `PromptSpace.encode` gave; the pipeline's own unconditional embeds by default.
            pipeline: what is to draw: its prompt space, dtype and device are taken, and all is
                checked against it.
            space: the prompt space; else the pipeline's, else the encoder's default one.
            sampling_rate: of recordings given as bare numbers.
            dtype: of the embeds; else the pipeline's, else the encoder's.
            device: of the embeds; else the pipeline's, else the encoder's.

        Returns:
            prompt_embeds and negative_prompt_embeds (N, L, D); with pooled_prompt_embeds and
            negative_pooled_prompt_embeds (N, P) where the pipeline takes them.

        Raises:
            AudioError: a recording cannot be read or has nothing to hear.
            ValueError: there is no such space, or no recording, or what is given does not fit.
        """
        if text is None and (weight is not None or blend != "interpolate"):
            raise ValueError("blend and weight are the text's: give text=PromptSpace.encode(...)")
        reader = None if pipeline is None else Reader.of(pipeline)
        if reader is not None and negative is not None:
            reader.check_negative()
        if reader is not None and space is None:
            shapes = {name: self.head(name).space for name in self.heads.names}
            space = reader.choose(shapes, self.config.default_space)
        head = self.head(space)
        sound = self.encode(recordings, space=space, sampling_rate=sampling_rate)
        if weights is not None:
            sound = weigh(sound, weights)
        null = head.null(len(sound))
        if negative is not None:
            given = _negative(self, negative, head.space.base, space, sampling_rate)
            null = matched(given, sound, "negative")
        if text is not None:
            sound = blended(sound, text, blend, weight, head.centre(len(sound)))
        if sound.embeds.shape[1] != null.embeds.shape[1]:
            null = _lengthened(null, sound.embeds.shape[1])
        dtype = dtype or (reader.dtype if reader else self.dtype)
        where = device or (reader.device if reader else self.device)
        found = {k: v.to(where, dtype) for k, v in sound.arguments(null).items()}
        return found if pipeline is None else check_prompt(pipeline, found)


def _negative(
    encoder: AudioPromptEncoder,
    negative: Any,
    base: str,
    space: str | None,
    sampling_rate: int | None,
) -> Prompts:
    if isinstance(negative, Prompts):
        return negative
    try:
        return encoder.encode(negative, space=space, sampling_rate=sampling_rate)
    except AudioError as error:
        given = negative if isinstance(negative, (list, tuple)) else [negative]
        if any(isinstance(one, str) and not os.path.exists(one) for one in given):
            raise AudioError(
                f"{error}; a negative in words is given as "
                f"PromptSpace.from_pretrained({base!r}).encode(words)"
            ) from error
        raise


def _lengthened(null: Prompts, length: int) -> Prompts:
    """The null said again until it is as long as a concatenated prompt."""
    longer = null
    while longer.embeds.shape[1] < length:
        longer = concatenate(longer, null)
    return Prompts(longer.embeds[:, :length], null.pooled, null.padding)
