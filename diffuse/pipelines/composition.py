"""Composition: how a text relates to a sound, and what follows for how the sound is heard.

CLAP2Diffusion's four relations, judged from embeds alone. The cosine of text and sound is taken
between standardised prompt embeds, where unrelated captions are near 0 (raw ones reach 0.97). A low
one has two reasons: the text names something else that sounds, or nothing that does. They are told
apart by the nearest caption that the encoder was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from align.prompts.embeds import Prompts
from align.prompts.space import PromptSpace

# Cosines, found on the miniature; docs/diffuse.md has the distributions between which they lie.
MATCHES, PARTLY_MATCHES, NAMES_A_SOUND = 0.58, 0.28, 0.4


@dataclass(frozen=True)
class Composition:
    """What a relation means, and what it does.

    Attributes:
        words: what the user is told.
        audio_scale: times the user's.
        behind: what is heard in front belongs behind what the text names.
    """

    words: str
    audio_scale: float = 1.0
    behind: bool = False


RELATIONS = {
    "matching": Composition("The text says what is heard."),
    "complementary": Composition("The text adds what cannot be heard."),
    "creative": Composition("The text names what is heard, and more.", 0.8),
    "contradictory": Composition("The text names something else than what is heard.", behind=True),
}


@dataclass(frozen=True)
class Relation:
    """How a text relates to a sound.

    Attributes:
        name: a key of RELATIONS.
        similarity: the cosine that it was judged by.
        by_hand: whether it was set and not judged.
        put_behind: whether what is heard in front was put behind, which takes an adapter.
    """

    name: str
    similarity: float
    by_hand: bool = False
    put_behind: bool = False

    @property
    def words(self) -> str:
        """What the user is told."""
        words = RELATIONS[self.name].words
        return f"{words[:-1]}, which is put behind it." if self.put_behind else words

    @property
    def behind(self) -> bool:
        """Whether what is heard in front belongs behind what the text names."""
        return RELATIONS[self.name].behind

    @property
    def audio_scale(self) -> float:
        """What the user's audio scale is multiplied with."""
        return RELATIONS[self.name].audio_scale


def check_relation(name: str) -> None:
    """Refuses a name that stands for no relation, nor for "auto" or "none".

    Raises:
        ValueError: it does not.
    """
    if name not in (*RELATIONS, "auto", "none"):
        raise ValueError(f"there is no relation {name!r}: {', '.join(RELATIONS)}, auto or none")


def judged(similarity: float, nearest_caption: float) -> str:
    """The relation by the text's cosines with the sound and with the nearest known caption."""
    if similarity >= MATCHES:
        return "matching"
    if similarity >= PARTLY_MATCHES:
        return "creative"
    return "contradictory" if nearest_caption >= NAMES_A_SOUND else "complementary"


class Composer:
    """Judges how texts relate to sounds.

    Args:
        statistics: of the prompt space, as the encoder's head holds them.
        captions: embeds (K, L, D) of captions that the encoder was trained on, one a label. None
            where they are not known: then no text is said to contradict.
    """

    def __init__(self, statistics: Any, captions: torch.Tensor | None = None) -> None:
        self._statistics = statistics
        self._known = None if captions is None else self._flat(captions)

    def _flat(self, embeds: torch.Tensor) -> torch.Tensor:
        where = self._statistics.mean
        return self._statistics.standardise(embeds.to(where)).flatten(1)

    def similarity(self, text: torch.Tensor, sound: torch.Tensor) -> float:
        """The cosine of standardised embeds (1, L, D)."""
        return float(F.cosine_similarity(self._flat(text), self._flat(sound))[0])

    def relation(self, name: str, text: Prompts | None, sound: Prompts) -> Relation | None:
        """The relation asked for by name, or judged for "auto"; None where nothing is composed.

        Raises:
            ValueError: there is no such relation.
        """
        check_relation(name)
        if text is None or name == "none":
            return None
        similarity = self.similarity(text.embeds, sound.embeds)
        if name != "auto":
            return Relation(name, similarity, by_hand=True)
        nearest = 0.0
        if self._known is not None:
            own = self._flat(text.embeds)
            nearest = float(F.cosine_similarity(own, self._known).max())
        return Relation(judged(similarity, nearest), similarity)


def label_captions(captions: Mapping[str, Sequence[str]]) -> list[str]:
    """One caption a label, the most frequent, of what an encoder was trained on."""
    return [max(sorted(set(texts)), key=list(texts).count) for texts in captions.values() if texts]


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
