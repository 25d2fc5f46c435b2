"""Captions and phrases as a base's text encoder reads them, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from align.preprocessing.cache import Cache
from align.preprocessing.text_embeds import CaptionEmbeds
from align.prompts.space import PromptSpace
from diffuse.data.pairs import AudioImagePairs
from diffuse.data.preprocessing import PreprocessedPairs
from diffuse.models.adapter import SoundAdapter
from diffuse.models.levels import LEVELS, NUM_LEVEL_TOKENS


def encode_texts(space: PromptSpace, parts: Sequence[AudioImagePairs], cache: Cache) -> TextEmbeds:
    """All captions, phrases and prompts of some pairs, and the base's null."""
    found: set[str] = set()
    for pairs in parts:
        for captions, phrases, prompt in zip(
            pairs.captions, pairs.phrases, pairs.prompts, strict=True
        ):
            found |= {text for text in (*captions, prompt, *(phrases or {}).values()) if text}
    unconditional = space.unconditional
    pooled = None if unconditional.pooled is None else unconditional.pooled[0].float().cpu()
    unconditional_pair = unconditional.embeds[0].float().cpu(), pooled
    if not found:
        return TextEmbeds(
            unconditional.embeds[:0].half(), unconditional.pooled, unconditional_pair, {}
        )
    table = CaptionEmbeds.encode(space, sorted(found), cache)
    index = {text: i for i, text in enumerate(table.captions)}
    return TextEmbeds(table.prompts.embeds, table.prompts.pooled, unconditional_pair, index)


def target_tokens(
    adapter: SoundAdapter, pairs: AudioImagePairs, prepared: PreprocessedPairs, texts: TextEmbeds
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the level tokens should be, (N, J, D) in half precision, and (N,) where that is known.

    A level whose phrase is "" should be the base's null: there is nothing to be heard.
    """
    projector: Any = adapter.projector
    width = projector.width
    made: dict[tuple[str, ...], torch.Tensor] = {}
    rows, known = [], []
    empty = torch.zeros(NUM_LEVEL_TOKENS, width, dtype=torch.half)
    for i in prepared.kept:
        phrases = pairs.phrases[i]
        known.append(phrases is not None)
        if phrases is None:
            rows.append(empty)
            continue
        key = tuple(phrases[level] for level in LEVELS)
        if key not in made:
            where = projector.get_buffer("initial_mixture").device
            phrase_embeds = {
                level: texts.get(phrases[level])[0][None].to(where) for level in LEVELS
            }
            made[key] = projector.targets(phrase_embeds)[0].half().cpu()
        rows.append(made[key])
    return torch.stack(rows), torch.tensor(known)


@dataclass(frozen=True)
class TextEmbeds:
    """The texts of a data set as a base's text encoder reads them.

    Attributes:
        embeds: (C, L, D) of the different texts, half precision.
        pooled: (C, P), or None where the base takes none.
        null: (L, D) and (P,) of the base's own unconditional embeds.
        place: a text's row.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None
    unconditional: tuple[torch.Tensor, torch.Tensor | None]
    index: dict[str, int]

    def get(self, text: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The embeds (L, D) and pooled embeds (P,) of a text; of "" the base's own null."""
        if not text:
            return self.unconditional
        row = self.index[text]
        return self.embeds[row].float(), None if self.pooled is None else self.pooled[row].float()
