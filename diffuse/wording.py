"""The text side of a picture: the prompt embeds that a pipeline reads beside the sound."""

from __future__ import annotations

from typing import Any

import torch

from align.prompts import Prompts, PromptSpace


class Wording:
    """Prompt embeds of text, of sound, and of both.

    Args:
        space: the pipeline's text side.
        head: the encoder's head of that space; its unconditional embeds are the null.
    """

    def __init__(self, space: PromptSpace, head: Any) -> None:
        self._space, self._head = space, head

    def of(self, text: str | None) -> Prompts | None:
        """The embeds (1, L, D) of a text; of "" the unconditional ones, of None none."""
        if text is None:
            return None
        return self._null() if not text.strip() else self._space.encode([text])

    def _null(self) -> Prompts:
        found = self._head.null(1)
        pooled = None if found.pooled is None else found.pooled.cpu()
        return Prompts(found.embeds.cpu(), pooled)

    def beside(self, text: Prompts | None, sound: Prompts) -> Prompts:
        """What is read while an adapter hears: the text, or the sound's own embeds."""
        return sound if text is None else text

    def blended(self, text: Prompts | None, sound: Prompts, scale: float) -> Prompts:
        """What is read where nothing else hears.

        Without text the sound's own embeds; with text both, one after the other, as prompts that
        are too long for one text encoder are given in pieces. The scale moves the sound's embeds
        away from the unconditional ones.
        """
        if scale != 1:
            sound = _towards(self._null(), sound, scale)
        if text is None:
            return sound
        if scale == 0:
            return text
        embeds = torch.cat([text.embeds, sound.embeds.to(text.embeds)], 1)
        if text.pooled is None or sound.pooled is None:
            return Prompts(embeds)
        return Prompts(embeds, (text.pooled + sound.pooled.to(text.pooled)) / 2)

    def null(self, negative: str | None, prompts: Prompts) -> Prompts:
        """What is guided away from, as long as the prompts."""
        found = self._null() if negative is None else self._space.encode([negative])
        times = prompts.embeds.shape[1] // found.embeds.shape[1]
        return Prompts(found.embeds.repeat(1, times, 1), found.pooled)


def _towards(null: Prompts, sound: Prompts, scale: float) -> Prompts:
    def moved(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        return start + scale * (end.cpu() - start)

    pooled = None
    if null.pooled is not None and sound.pooled is not None:
        pooled = moved(null.pooled, sound.pooled)
    return Prompts(moved(null.embeds, sound.embeds), pooled)
