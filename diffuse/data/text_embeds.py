"""Captions and phrases as a base's text encoder reads them, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from align.preprocessing.cache import Cache
from align.preprocessing.text_embeds import CaptionTable
from align.prompts.space import PromptSpace
from diffuse.data.pairs import Pairs
from diffuse.data.preprocessing import Prepared
from diffuse.models.adapter import SoundAdapter
from diffuse.models.levels import LEVELS, TOKENS


def encode_texts(space: PromptSpace, parts: Sequence[Pairs], cache: Cache) -> Texts:
    """All captions, phrases and prompts of some pairs, and the base's null."""
    found: set[str] = set()
    for pairs in parts:
        for captions, phrases, prompt in zip(
            pairs.captions, pairs.phrases, pairs.prompts, strict=True
        ):
            found |= {text for text in (*captions, prompt, *(phrases or {}).values()) if text}
    null = space.unconditional
    nothing = None if null.pooled is None else null.pooled[0].float().cpu()
    unconditional = null.embeds[0].float().cpu(), nothing
    if not found:
        return Texts(null.embeds[:0].half(), null.pooled, unconditional, {})
    table = CaptionTable.of(space, sorted(found), cache)
    place = {text: i for i, text in enumerate(table.captions)}
    return Texts(table.prompts.embeds, table.prompts.pooled, unconditional, place)


def wanted_tokens(
    adapter: SoundAdapter, pairs: Pairs, prepared: Prepared, texts: Texts
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the level tokens should be, (N, J, D) in half precision, and (N,) where that is known.

    A level whose phrase is "" should be the base's null: there is nothing to be heard.
    """
    projector: Any = adapter.projector
    width = projector.width
    made: dict[tuple[str, ...], torch.Tensor] = {}
    rows, known = [], []
    nothing = torch.zeros(TOKENS, width, dtype=torch.half)
    for i in prepared.kept:
        phrases = pairs.phrases[i]
        known.append(phrases is not None)
        if phrases is None:
            rows.append(nothing)
            continue
        key = tuple(phrases[level] for level in LEVELS)
        if key not in made:
            where = projector.get_buffer("start").device
            asked = {level: texts.of(phrases[level])[0][None].to(where) for level in LEVELS}
            made[key] = projector.targets(asked)[0].half().cpu()
        rows.append(made[key])
    return torch.stack(rows), torch.tensor(known)


@dataclass(frozen=True)
class Texts:
    """The texts of a data set as a base's text encoder reads them.

    Attributes:
        embeds: (C, L, D) of the different texts, half precision.
        pooled: (C, P), or None where the base takes none.
        null: (L, D) and (P,) of the base's own unconditional embeds.
        place: a text's row.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None
    null: tuple[torch.Tensor, torch.Tensor | None]
    place: dict[str, int]

    def of(self, text: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The embeds (L, D) and pooled embeds (P,) of a text; of "" the base's own null."""
        if not text:
            return self.null
        row = self.place[text]
        return self.embeds[row].float(), None if self.pooled is None else self.pooled[row].float()
