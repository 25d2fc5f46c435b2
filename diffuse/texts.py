"""Captions and phrases as a base's text encoder reads them, encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from align.cache import Cache
from align.prompts import PromptSpace
from align.targets import CaptionTable
from diffuse.adapter import SoundAdapter
from diffuse.batches import Texts
from diffuse.data import Pairs
from diffuse.latents import Prepared
from diffuse.levels import LEVELS, TOKENS
from diffuse.recall import LevelRecall

if TYPE_CHECKING:
    from diffuse.session import Session


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


def remember_phrases(session: Session) -> None:
    """Has the adapter that trains remember what its pairs' phrases ask for, as the options say.

    A saved adapter whose projector stays as it is keeps what it remembers.
    """
    given, adapter = session.options.recall, session.adapter
    learns = any("projector" in stage.trains for stage in session.stages)
    if session.options.model.adapter is not None and given.recall and not learns:
        return
    wanted, known = wanted_tokens(adapter, session.pairs, session.prepared, session.texts)
    spread = adapter.projector.get_buffer("spread").cpu()
    adapter.remember(LevelRecall.of(wanted[known], spread, given))
