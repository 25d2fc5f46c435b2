"""Relations of prompts to audio."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from align.prompts.embeds import EmbedStatistics, PromptEmbeds
from diffuse.pipelines.composition import (
    CONTRADICTION_THRESHOLD,
    MATCH_THRESHOLD,
    PARTIAL_MATCH_THRESHOLD,
    RELATIONS,
    RelationClassifier,
    classify_relation,
    label_captions,
)


@pytest.fixture
def statistics() -> EmbedStatistics:
    """Statistics of a space whose embeds share a large component, as prompt embeds do."""
    torch.manual_seed(0)
    return EmbedStatistics(
        torch.full((4, 8), 30.0), torch.rand(4, 8) + 0.5, torch.zeros(4, 8).bool()
    )


def embeds(statistics: EmbedStatistics, *concepts: tuple[int, float]) -> torch.Tensor:
    """Return embeds (1, 4, 8) with the given amounts of independent concepts."""
    standard = torch.zeros(4, 8)
    for concept, amount in concepts:
        standard[:, concept] = amount
    return statistics.restore(standard)[None]


@pytest.fixture
def classifier(statistics: EmbedStatistics) -> RelationClassifier:
    """A classifier whose training captions are the concepts 0, 1 and 2."""
    captions = torch.cat([embeds(statistics, (concept, 1.0)) for concept in range(3)])
    return RelationClassifier(statistics, captions)


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ([(0, 1.0), (5, 0.3)], "matching"),
        ([(0, 0.5), (1, 1.0)], "creative"),
        ([(1, 1.0), (5, 0.3)], "contradictory"),
        ([(5, 1.0)], "complementary"),
    ],
)
def test_classify_auto_selects_the_relation(
    classifier: RelationClassifier, statistics: EmbedStatistics, text: Any, relation: str
) -> None:
    audio = PromptEmbeds(embeds(statistics, (0, 1.0)))
    found = classifier.classify("auto", PromptEmbeds(embeds(statistics, *text)), audio)
    assert found is not None and found.name == relation and not found.is_manual
    assert found.description == RELATIONS[relation].description and not found.moved_to_background


def test_similarity_ignores_the_shared_component(
    classifier: RelationClassifier, statistics: EmbedStatistics
) -> None:
    one, other = embeds(statistics, (0, 1.0)), embeds(statistics, (1, 1.0))
    raw = torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1))
    assert raw.item() > 0.99 and abs(classifier.similarity(one, other)) < 1e-4
    assert classifier.similarity(one, one) == pytest.approx(1.0)


def test_classify_without_captions_is_never_contradictory(statistics: EmbedStatistics) -> None:
    audio = PromptEmbeds(embeds(statistics, (0, 1.0)))
    found = RelationClassifier(statistics).classify(
        "auto", PromptEmbeds(embeds(statistics, (1, 1.0))), audio
    )
    assert found is not None and found.name == "complementary"


def test_classify_manual_and_none(
    classifier: RelationClassifier, statistics: EmbedStatistics
) -> None:
    audio = PromptEmbeds(embeds(statistics, (0, 1.0)))
    found = classifier.classify("contradictory", audio, audio)
    assert found is not None and found.name == "contradictory" and found.is_manual
    assert found.similarity == pytest.approx(1.0)
    assert classifier.classify("none", audio, audio) is None
    assert classifier.classify("auto", None, audio) is None
    with pytest.raises(ValueError, match="no relation 'friendly': give matching, complementary"):
        classifier.classify("friendly", audio, audio)


def test_classify_relation_thresholds() -> None:
    assert [classify_relation(s, 1.0) for s in (MATCH_THRESHOLD, PARTIAL_MATCH_THRESHOLD, 0.0)] == [
        "matching",
        "creative",
        "contradictory",
    ]
    assert classify_relation(0.0, CONTRADICTION_THRESHOLD - 0.01) == "complementary"


def test_relation_effects(classifier: RelationClassifier, statistics: EmbedStatistics) -> None:
    audio = PromptEmbeds(embeds(statistics, (0, 1.0)))
    for name, composition in RELATIONS.items():
        found = classifier.classify(name, audio, audio)
        assert found is not None
        assert found.audio_scale == composition.audio_scale
        assert found.audio_to_background == (name == "contradictory")
    assert RELATIONS["creative"].audio_scale != RELATIONS["matching"].audio_scale


def test_label_captions_returns_the_most_frequent() -> None:
    captions = {"dog": ["a dog", "barking", "barking"], "rain": ["rain"], "none": []}
    assert label_captions(captions) == ["barking", "rain"]


@pytest.mark.parametrize("kind", ["matching", "scene", "other"])
def test_classify_with_the_mini_text_encoder(kind: str) -> None:
    """Captions replace audio here: the encoder predicts embeds of captions."""
    from align.preprocessing.text_embeds import CaptionEmbeds
    from align.prompts.space import PromptSpace
    from soundprompt.mini.captions import audio_captions, class_caption
    from soundprompt.mini.world import CLASSES

    space = PromptSpace.from_pretrained("mini")
    table = CaptionEmbeds.encode(space, [text for name in CLASSES for text in audio_captions(name)])
    captions = space.encode([class_caption(name) for name in CLASSES]).embeds
    classifier = RelationClassifier(table.statistics()["embeds"], captions)
    texts = {
        "matching": ("a barking dog", "matching"),
        "scene": ("a picture at night", "complementary"),
        "other": ("rain pouring down", "contradictory"),
    }
    text, relation = texts[kind]
    found = classifier.classify("auto", space.encode([text]), space.encode(["a dog barking"]))
    assert found is not None and found.name == relation
