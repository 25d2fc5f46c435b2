"""Captions and phrases as a base's text encoder reads them, encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from align.prompts import PromptSpace
from diffuse.adapter import SoundAdapter
from diffuse.batches import Texts
from diffuse.data import Pairs
from diffuse.keeping import keep
from diffuse.latents import Prepared
from diffuse.levels import LEVELS, TOKENS

PROBE = "a dog barking in the rain at night"  # by its embeds a text encoder is known again


def encode_texts(space: PromptSpace, parts: Sequence[Pairs], cache: Path | None) -> Texts:
    """All captions, phrases and prompts of some pairs, and the base's null.

    Raises:
        DataError: no pair has any text.
    """
    found: dict[str, None] = {PROBE: None}
    for pairs in parts:
        for captions, phrases, prompt in zip(
            pairs.captions, pairs.phrases, pairs.prompts, strict=True
        ):
            said = [*captions, prompt, *(phrases.values() if phrases else ())]
            found.update(dict.fromkeys(text for text in said if text))
    texts = list(found)
    probe = space.encode([PROBE]).embeds
    source = {
        "texts": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "encoder": [round(x, 4) for x in probe.flatten()[:: max(1, probe.numel() // 64)].tolist()],
    }
    kept, _ = keep(cache, "texts", source, lambda: (_encoded(space, texts), {}))
    null = space.unconditional
    nothing = None if null.pooled is None else null.pooled[0].float().cpu()
    return Texts(
        kept["embeds"],
        kept.get("pooled"),
        (null.embeds[0].float().cpu(), nothing),
        {text: i for i, text in enumerate(texts)},
    )


def _encoded(space: PromptSpace, texts: list[str]) -> dict[str, torch.Tensor]:
    prompts = space.encode(texts)
    tensors = {"embeds": prompts.embeds.half()}
    return tensors if prompts.pooled is None else tensors | {"pooled": prompts.pooled.half()}


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
