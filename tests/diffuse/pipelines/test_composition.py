"""How text and sound relate, and what follows."""

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
    """Of a space whose embeds all share a large part, as prompt embeds do."""
    torch.manual_seed(0)
    return EmbedStatistics(
        torch.full((4, 8), 30.0), torch.rand(4, 8) + 0.5, torch.zeros(4, 8).bool()
    )


def embeds(statistics: EmbedStatistics, *meanings: tuple[int, float]) -> torch.Tensor:
    """Embeds (1, 4, 8) that mean so much of so many independent things."""
    standard = torch.zeros(4, 8)
    for thing, much in meanings:
        standard[:, thing] = much
    return statistics.restore(standard)[None]


@pytest.fixture
def composer(statistics: EmbedStatistics) -> RelationClassifier:
    """One that knows the sounds of things 0, 1 and 2."""
    known = torch.cat([embeds(statistics, (thing, 1.0)) for thing in range(3)])
    return RelationClassifier(statistics, known)


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ([(0, 1.0), (5, 0.3)], "matching"),
        ([(0, 0.5), (1, 1.0)], "creative"),
        ([(1, 1.0), (5, 0.3)], "contradictory"),
        ([(5, 1.0)], "complementary"),
    ],
)
def test_relations_follow_from_embeds(
    composer: RelationClassifier, statistics: EmbedStatistics, text: Any, relation: str
) -> None:
    sound = PromptEmbeds(embeds(statistics, (0, 1.0)))
    found = composer.classify("auto", PromptEmbeds(embeds(statistics, *text)), sound)
    assert found is not None and found.name == relation and not found.is_manual
    assert found.description == RELATIONS[relation].description and not found.moved_to_background


def test_the_shared_part_of_all_prompts_does_not_count(
    composer: RelationClassifier, statistics: EmbedStatistics
) -> None:
    one, other = embeds(statistics, (0, 1.0)), embeds(statistics, (1, 1.0))
    raw = torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1))
    assert raw.item() > 0.99 and abs(composer.similarity(one, other)) < 1e-4
    assert composer.similarity(one, one) == pytest.approx(1.0)


def test_nothing_contradicts_where_no_captions_are_known(statistics: EmbedStatistics) -> None:
    sound = PromptEmbeds(embeds(statistics, (0, 1.0)))
    found = RelationClassifier(statistics).classify(
        "auto", PromptEmbeds(embeds(statistics, (1, 1.0))), sound
    )
    assert found is not None and found.name == "complementary"


def test_a_relation_is_set_by_hand_or_left_out(
    composer: RelationClassifier, statistics: EmbedStatistics
) -> None:
    sound = PromptEmbeds(embeds(statistics, (0, 1.0)))
    found = composer.classify("contradictory", sound, sound)
    assert found is not None and found.name == "contradictory" and found.is_manual
    assert found.similarity == pytest.approx(1.0)
    assert composer.classify("none", sound, sound) is None
    assert composer.classify("auto", None, sound) is None
    with pytest.raises(ValueError, match="no relation 'friendly': matching, complementary"):
        composer.classify("friendly", sound, sound)


def test_thresholds_are_in_order() -> None:
    assert [classify_relation(s, 1.0) for s in (MATCH_THRESHOLD, PARTIAL_MATCH_THRESHOLD, 0.0)] == [
        "matching",
        "creative",
        "contradictory",
    ]
    assert classify_relation(0.0, CONTRADICTION_THRESHOLD - 0.01) == "complementary"


def test_relations_change_how_the_sound_is_heard(
    composer: RelationClassifier, statistics: EmbedStatistics
) -> None:
    sound = PromptEmbeds(embeds(statistics, (0, 1.0)))
    for name, composition in RELATIONS.items():
        found = composer.classify(name, sound, sound)
        assert found is not None
        assert found.audio_scale == composition.audio_scale
        assert found.audio_to_background == (name == "contradictory")
    assert RELATIONS["creative"].audio_scale != RELATIONS["matching"].audio_scale


def test_a_labels_most_frequent_caption_stands_for_it() -> None:
    captions = {"dog": ["a dog", "barking", "barking"], "rain": ["rain"], "none": []}
    assert label_captions(captions) == ["barking", "rain"]


@pytest.mark.parametrize("kind", ["say", "scene", "other"])
def test_on_the_miniatures_own_text(kind: str) -> None:
    """Captions stand for sounds here: the encoder's answers lie among them."""
    from align.preprocessing.text_embeds import CaptionEmbeds
    from align.prompts.space import PromptSpace
    from soundprompt.mini.captions import audio_captions, class_caption
    from soundprompt.mini.world import CLASSES

    space = PromptSpace.from_pretrained("mini")
    table = CaptionEmbeds.encode(space, [text for name in CLASSES for text in audio_captions(name)])
    known = space.encode([class_caption(name) for name in CLASSES]).embeds
    composer = RelationClassifier(table.statistics()["embeds"], known)
    texts = {"say": ("a barking dog", "matching"), "scene": ("a picture at night", "complementary"),
             "other": ("rain pouring down", "contradictory")}  # fmt: skip
    text, relation = texts[kind]
    found = composer.classify("auto", space.encode([text]), space.encode(["a dog barking"]))
    assert found is not None and found.name == relation
