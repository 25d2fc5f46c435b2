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

from align.prompts.embeds import PromptEmbeds
from align.prompts.space import PromptSpace

# Cosines, found on the miniature; docs/diffuse.md has the distributions between which they lie.
MATCH_THRESHOLD, PARTIAL_MATCH_THRESHOLD, CONTRADICTION_THRESHOLD = 0.58, 0.28, 0.4


@dataclass(frozen=True)
class RelationEffect:
    """What a relation means, and what it does.

    Attributes:
        words: what the user is told.
        audio_scale: times the user's.
        behind: what is heard in front belongs behind what the text names.
    """

    description: str
    audio_scale: float = 1.0
    audio_to_background: bool = False


RELATIONS = {
    "matching": RelationEffect("The text says what is heard."),
    "complementary": RelationEffect("The text adds what cannot be heard."),
    "creative": RelationEffect("The text names what is heard, and more.", 0.8),
    "contradictory": RelationEffect(
        "The text names something else than what is heard.", audio_to_background=True
    ),
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
    is_manual: bool = False
    moved_to_background: bool = False

    @property
    def description(self) -> str:
        """What the user is told."""
        description = RELATIONS[self.name].description
        return (
            f"{description[:-1]}, which is put behind it."
            if self.moved_to_background
            else description
        )

    @property
    def audio_to_background(self) -> bool:
        """Whether what is heard in front belongs behind what the text names."""
        return RELATIONS[self.name].audio_to_background

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


def classify_relation(similarity: float, nearest_caption: float) -> str:
    """The relation by the text's cosines with the sound and with the nearest known caption."""
    if similarity >= MATCH_THRESHOLD:
        return "matching"
    if similarity >= PARTIAL_MATCH_THRESHOLD:
        return "creative"
    return "contradictory" if nearest_caption >= CONTRADICTION_THRESHOLD else "complementary"


class RelationClassifier:
    """Judges how texts relate to sounds.

    Args:
        statistics: of the prompt space, as the encoder's head holds them.
        captions: embeds (K, L, D) of captions that the encoder was trained on, one a label. None
            where they are not known: then no text is said to contradict.
    """

    def __init__(self, statistics: Any, captions: torch.Tensor | None = None) -> None:
        self._statistics = statistics
        self._known_captions = None if captions is None else self._flat(captions)

    def _flat(self, embeds: torch.Tensor) -> torch.Tensor:
        where = self._statistics.mean
        return self._statistics.standardize(embeds.to(where)).flatten(1)

    def similarity(self, text: torch.Tensor, audio: torch.Tensor) -> float:
        """The cosine of standardised embeds (1, L, D)."""
        return float(F.cosine_similarity(self._flat(text), self._flat(audio))[0])

    def classify(
        self, name: str, text: PromptEmbeds | None, audio: PromptEmbeds
    ) -> Relation | None:
        """The relation asked for by name, or judged for "auto"; None where nothing is composed.

        Raises:
            ValueError: there is no such relation.
        """
        check_relation(name)
        if text is None or name == "none":
            return None
        similarity = self.similarity(text.embeds, audio.embeds)
        if name != "auto":
            return Relation(name, similarity, is_manual=True)
        nearest = 0.0
        if self._known_captions is not None:
            own = self._flat(text.embeds)
            nearest = float(F.cosine_similarity(own, self._known_captions).max())
        return Relation(classify_relation(similarity, nearest), similarity)


def label_captions(captions: Mapping[str, Sequence[str]]) -> list[str]:
    """One caption a label, the most frequent, of what an encoder was trained on."""
    return [max(sorted(set(texts)), key=list(texts).count) for texts in captions.values() if texts]


class TextConditioner:
    """Prompt embeds of text, of sound, and of both.

    Args:
        space: the pipeline's text side.
        head: the encoder's head of that space; its unconditional embeds are the null.
    """

    def __init__(self, space: PromptSpace, head: Any) -> None:
        self._space, self._head = space, head

    def encode(self, text: str | None) -> PromptEmbeds | None:
        """The embeds (1, L, D) of a text; of "" the unconditional ones, of None none."""
        if text is None:
            return None
        return self._unconditional() if not text.strip() else self._space.encode([text])

    def _unconditional(self) -> PromptEmbeds:
        found = self._head.unconditional(1)
        pooled = None if found.pooled is None else found.pooled.cpu()
        return PromptEmbeds(found.embeds.cpu(), pooled)

    def combine(self, text: PromptEmbeds | None, audio: PromptEmbeds, scale: float) -> PromptEmbeds:
        """What is read where nothing else hears.

        Without text the sound's own embeds; with text both, one after the other, as prompts that
        are too long for one text encoder are given in pieces. The scale moves the sound's embeds
        away from the unconditional ones.
        """
        if scale != 1:
            audio = _scale_from_unconditional(self._unconditional(), audio, scale)
        if text is None:
            return audio
        if scale == 0:
            return text
        embeds = torch.cat([text.embeds, audio.embeds.to(text.embeds)], 1)
        if text.pooled is None or audio.pooled is None:
            return PromptEmbeds(embeds)
        return PromptEmbeds(embeds, (text.pooled + audio.pooled.to(text.pooled)) / 2)

    def encode_negative(self, negative_prompt: str | None, prompts: PromptEmbeds) -> PromptEmbeds:
        """What is guided away from, as long as the prompts."""
        found = (
            self._unconditional()
            if negative_prompt is None
            else self._space.encode([negative_prompt])
        )
        times = prompts.embeds.shape[1] // found.embeds.shape[1]
        return PromptEmbeds(found.embeds.repeat(1, times, 1), found.pooled)


def _scale_from_unconditional(
    unconditional: PromptEmbeds, audio: PromptEmbeds, scale: float
) -> PromptEmbeds:
    def moved(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        return start + scale * (end.cpu() - start)

    pooled = None
    if unconditional.pooled is not None and audio.pooled is not None:
        pooled = moved(unconditional.pooled, audio.pooled)
    return PromptEmbeds(moved(unconditional.embeds, audio.embeds), pooled)
