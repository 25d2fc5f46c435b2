"""Composition of prompt and audio: how they relate, and how the audio is used accordingly.

The four relations are those of CLAP2Diffusion, classified from prompt embeds alone. The cosine of
prompt and audio is computed between standardized embeds, where unrelated captions are near 0 (up to
0.97 between raw ones). A low cosine means that the prompt names another sound or nothing audible,
which the cosine with the nearest training caption of the encoder distinguishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from align.prompts.embeds import PromptEmbeds
from align.prompts.space import PromptSpace

# Cosine thresholds, tuned on the mini models; docs/diffuse.md shows the distributions.
MATCH_THRESHOLD, PARTIAL_MATCH_THRESHOLD, CONTRADICTION_THRESHOLD = 0.58, 0.28, 0.4


@dataclass(frozen=True)
class RelationEffect:
    """Description and effect of a relation.

    Attributes:
        description: Sentence shown to the user.
        audio_scale: Factor of the user's audio scale.
        audio_to_background: Whether the foreground of the audio is moved to the background.
    """

    description: str
    audio_scale: float = 1.0
    audio_to_background: bool = False


RELATIONS = {
    "matching": RelationEffect("The prompt describes the audio."),
    "complementary": RelationEffect("The prompt adds something inaudible."),
    "creative": RelationEffect("The prompt describes the audio and more.", 0.8),
    "contradictory": RelationEffect(
        "The prompt names something other than the audio.", audio_to_background=True
    ),
}


@dataclass(frozen=True)
class Relation:
    """Relation of a prompt to audio.

    Attributes:
        name: A key of RELATIONS.
        similarity: Cosine of prompt and audio.
        is_manual: Whether the user set the relation.
        moved_to_background: Whether the audio was moved to the background (requires an adapter).
    """

    name: str
    similarity: float
    is_manual: bool = False
    moved_to_background: bool = False

    @property
    def description(self) -> str:
        """Sentence shown to the user."""
        description = RELATIONS[self.name].description
        return (
            f"{description[:-1]}, which is moved to the background."
            if self.moved_to_background
            else description
        )

    @property
    def audio_to_background(self) -> bool:
        """Whether the foreground of the audio belongs in the background."""
        return RELATIONS[self.name].audio_to_background

    @property
    def audio_scale(self) -> float:
        """Factor of the user's audio scale."""
        return RELATIONS[self.name].audio_scale


def check_relation(name: str) -> None:
    """Check that a relation exists.

    Args:
        name: A key of RELATIONS, "auto" or "none".

    Raises:
        ValueError: If there is no such relation.
    """
    if name not in (*RELATIONS, "auto", "none"):
        raise ValueError(
            f"there is no relation {name!r}: give {', '.join(RELATIONS)}, auto or none"
        )


def classify_relation(similarity: float, nearest_caption: float) -> str:
    """Classify a relation by thresholds.

    Args:
        similarity: Cosine of prompt and audio.
        nearest_caption: Cosine of the prompt and the nearest training caption.

    Returns:
        A key of RELATIONS.
    """
    if similarity >= MATCH_THRESHOLD:
        return "matching"
    if similarity >= PARTIAL_MATCH_THRESHOLD:
        return "creative"
    return "contradictory" if nearest_caption >= CONTRADICTION_THRESHOLD else "complementary"


class RelationClassifier:
    """Classifies how prompts relate to audio.

    Args:
        statistics: Statistics of the prompt space, from the encoder's head.
        captions: Embeds (K, L, D) of training captions of the encoder, one per label. Without them
            no prompt is classified as contradictory.
    """

    def __init__(self, statistics: Any, captions: torch.Tensor | None = None) -> None:
        self._statistics = statistics
        self._known_captions = None if captions is None else self._flat(captions)

    def _flat(self, embeds: torch.Tensor) -> torch.Tensor:
        mean = self._statistics.mean
        return self._statistics.standardize(embeds.to(mean)).flatten(1)

    def similarity(self, text: torch.Tensor, audio: torch.Tensor) -> float:
        """Return the cosine of standardized embeds.

        Args:
            text: Prompt embeds (1, L, D) of a text.
            audio: Prompt embeds (1, L, D) of audio.
        """
        return float(F.cosine_similarity(self._flat(text), self._flat(audio))[0])

    def classify(
        self, name: str, text: PromptEmbeds | None, audio: PromptEmbeds
    ) -> Relation | None:
        """Return the relation of a prompt to audio.

        Args:
            name: A key of RELATIONS, "auto" to classify the relation, or "none".
            text: Prompt embeds of the text, or None without text.
            audio: Prompt embeds of the audio.

        Returns:
            The relation, or None without text or for "none".

        Raises:
            ValueError: If there is no such relation.
        """
        check_relation(name)
        if text is None or name == "none":
            return None
        similarity = self.similarity(text.embeds, audio.embeds)
        if name != "auto":
            return Relation(name, similarity, is_manual=True)
        nearest = 0.0
        if self._known_captions is not None:
            flat = self._flat(text.embeds)
            nearest = float(F.cosine_similarity(flat, self._known_captions).max())
        return Relation(classify_relation(similarity, nearest), similarity)


def label_captions(captions: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the most frequent caption of each label.

    Args:
        captions: Training captions of an encoder by label.
    """
    return [max(sorted(set(texts)), key=list(texts).count) for texts in captions.values() if texts]


class TextConditioner:
    """Prompt embeds of text, of audio, and of both.

    Args:
        space: Prompt space of the pipeline.
        head: Head of the encoder for that space, with its unconditional embeds.
    """

    def __init__(self, space: PromptSpace, head: Any) -> None:
        self._space, self._head = space, head

    def encode(self, text: str | None) -> PromptEmbeds | None:
        """Return the prompt embeds (1, L, D) of a text.

        Args:
            text: Text to encode. "" returns the unconditional embeds, None returns None.
        """
        if text is None:
            return None
        return self._unconditional() if not text.strip() else self._space.encode([text])

    def _unconditional(self) -> PromptEmbeds:
        prompts = self._head.unconditional(1)
        pooled = None if prompts.pooled is None else prompts.pooled.cpu()
        return PromptEmbeds(prompts.embeds.cpu(), pooled)

    def combine(self, text: PromptEmbeds | None, audio: PromptEmbeds, scale: float) -> PromptEmbeds:
        """Combine text and audio into prompt embeds for a pipeline without an adapter.

        The embeds of text and audio are concatenated along the sequence, like the chunks of a long
        prompt. Without text the embeds of the audio are returned.

        Args:
            text: Prompt embeds of the text, or None.
            audio: Prompt embeds of the audio.
            scale: Scale of the audio embeds relative to the unconditional embeds.
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
        """Return negative prompt embeds of the same length as the prompt embeds.

        Args:
            negative_prompt: Negative prompt. None returns the unconditional embeds.
            prompts: Prompt embeds of the generation.
        """
        negative = (
            self._unconditional()
            if negative_prompt is None
            else self._space.encode([negative_prompt])
        )
        times = prompts.embeds.shape[1] // negative.embeds.shape[1]
        return PromptEmbeds(negative.embeds.repeat(1, times, 1), negative.pooled)


def _scale_from_unconditional(
    unconditional: PromptEmbeds, audio: PromptEmbeds, scale: float
) -> PromptEmbeds:
    def interpolate(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        return start + scale * (end.cpu() - start)

    pooled = None
    if unconditional.pooled is not None and audio.pooled is not None:
        pooled = interpolate(unconditional.pooled, audio.pooled)
    return PromptEmbeds(interpolate(unconditional.embeds, audio.embeds), pooled)
