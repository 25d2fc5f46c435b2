"""Prompt embeds of captions and phrases, encoded once by the base model's text encoder."""

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
    """Encode all captions, phrases and prompts of pairs, and the unconditional embeds.

    Args:
        space: Prompt space of the base model.
        parts: Sets of pairs.
        cache: Cache of the embeds.
    """
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
    """Return the target level tokens of pairs.

    The target of a level without a phrase ("") is the unconditional embeds.

    Args:
        adapter: Audio adapter whose projector computes the targets.
        pairs: Pairs with phrases.
        prepared: Their preprocessed tensors.
        texts: Embeds of their phrases.

    Returns:
        Tokens (N, J, D) in half precision, and a mask (N,) of the pairs whose phrases are known.
    """
    projector: Any = adapter.projector
    targets: dict[tuple[str, ...], torch.Tensor] = {}
    rows, known = [], []
    empty = torch.zeros(NUM_LEVEL_TOKENS, projector.width, dtype=torch.half)
    for i in prepared.kept:
        phrases = pairs.phrases[i]
        known.append(phrases is not None)
        if phrases is None:
            rows.append(empty)
            continue
        key = tuple(phrases[level] for level in LEVELS)
        if key not in targets:
            device = projector.get_buffer("initial_mixture").device
            phrase_embeds = {
                level: texts.get(phrases[level])[0][None].to(device) for level in LEVELS
            }
            targets[key] = projector.targets(phrase_embeds)[0].half().cpu()
        rows.append(targets[key])
    return torch.stack(rows), torch.tensor(known)


@dataclass(frozen=True)
class TextEmbeds:
    """Prompt embeds of the texts of a dataset.

    Attributes:
        embeds: (C, L, D) of the different texts, half precision.
        pooled: (C, P), or None if the base model has no pooled embeds.
        unconditional: (L, D) and (P,) of the unconditional embeds.
        index: Row of each text.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None
    unconditional: tuple[torch.Tensor, torch.Tensor | None]
    index: dict[str, int]

    def get(self, text: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the embeds (L, D) and pooled embeds (P,) of a text.

        Args:
            text: An encoded text; "" returns the unconditional embeds.
        """
        if not text:
            return self.unconditional
        row = self.index[text]
        return self.embeds[row].float(), None if self.pooled is None else self.pooled[row].float()
