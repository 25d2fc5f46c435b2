"""How text and sound relate, and what follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from align.prompts.embeds import Prompts, Statistics
from diffuse.pipelines.composition import (
    MATCHES,
    NAMES_A_SOUND,
    PARTLY_MATCHES,
    RELATIONS,
    Composer,
    judged,
    label_captions,
)


@pytest.fixture
def statistics() -> Statistics:
    """Of a space whose embeds all share a large part, as prompt embeds do."""
    torch.manual_seed(0)
    return Statistics(torch.full((4, 8), 30.0), torch.rand(4, 8) + 0.5, torch.zeros(4, 8).bool())


def embeds(statistics: Statistics, *meanings: tuple[int, float]) -> torch.Tensor:
    """Embeds (1, 4, 8) that mean so much of so many independent things."""
    standard = torch.zeros(4, 8)
    for thing, much in meanings:
        standard[:, thing] = much
    return statistics.restore(standard)[None]


@pytest.fixture
def composer(statistics: Statistics) -> Composer:
    """One that knows the sounds of things 0, 1 and 2."""
    known = torch.cat([embeds(statistics, (thing, 1.0)) for thing in range(3)])
    return Composer(statistics, known)


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
    composer: Composer, statistics: Statistics, text: Any, relation: str
) -> None:
    sound = Prompts(embeds(statistics, (0, 1.0)))
    found = composer.relation("auto", Prompts(embeds(statistics, *text)), sound)
    assert found is not None and found.name == relation and not found.by_hand
    assert found.words == RELATIONS[relation].words and not found.put_behind


def test_the_shared_part_of_all_prompts_does_not_count(
    composer: Composer, statistics: Statistics
) -> None:
    one, other = embeds(statistics, (0, 1.0)), embeds(statistics, (1, 1.0))
    raw = torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1))
    assert raw.item() > 0.99 and abs(composer.similarity(one, other)) < 1e-4
    assert composer.similarity(one, one) == pytest.approx(1.0)


def test_nothing_contradicts_where_no_captions_are_known(statistics: Statistics) -> None:
    sound = Prompts(embeds(statistics, (0, 1.0)))
    found = Composer(statistics).relation("auto", Prompts(embeds(statistics, (1, 1.0))), sound)
    assert found is not None and found.name == "complementary"


def test_a_relation_is_set_by_hand_or_left_out(composer: Composer, statistics: Statistics) -> None:
    sound = Prompts(embeds(statistics, (0, 1.0)))
    found = composer.relation("contradictory", sound, sound)
    assert found is not None and found.name == "contradictory" and found.by_hand
    assert found.similarity == pytest.approx(1.0)
    assert composer.relation("none", sound, sound) is None
    assert composer.relation("auto", None, sound) is None
    with pytest.raises(ValueError, match="no relation 'friendly': matching, complementary"):
        composer.relation("friendly", sound, sound)


def test_thresholds_are_in_order() -> None:
    assert [judged(s, 1.0) for s in (MATCHES, PARTLY_MATCHES, 0.0)] == [
        "matching",
        "creative",
        "contradictory",
    ]
    assert judged(0.0, NAMES_A_SOUND - 0.01) == "complementary"


def test_relations_change_how_the_sound_is_heard(
    composer: Composer, statistics: Statistics
) -> None:
    sound = Prompts(embeds(statistics, (0, 1.0)))
    for name, composition in RELATIONS.items():
        found = composer.relation(name, sound, sound)
        assert found is not None
        assert found.audio_scale == composition.audio_scale
        assert found.behind == (name == "contradictory")
    assert RELATIONS["creative"].audio_scale != RELATIONS["matching"].audio_scale


def test_a_labels_most_frequent_caption_stands_for_it() -> None:
    captions = {"dog": ["a dog", "barking", "barking"], "rain": ["rain"], "none": []}
    assert label_captions(captions) == ["barking", "rain"]


@pytest.mark.parametrize("kind", ["say", "scene", "other"])
def test_on_the_miniatures_own_text(kind: str) -> None:
    """Captions stand for sounds here: the encoder's answers lie among them."""
    from align.preprocessing.text_embeds import CaptionTable
    from align.prompts.space import PromptSpace
    from soundprompt.mini.captions import class_caption, heard_wordings
    from soundprompt.mini.world import CLASSES

    space = PromptSpace.from_pretrained("mini")
    table = CaptionTable.of(space, [text for name in CLASSES for text in heard_wordings(name)])
    known = space.encode([class_caption(name) for name in CLASSES]).embeds
    composer = Composer(table.statistics()["embeds"], known)
    texts = {"say": ("a barking dog", "matching"), "scene": ("a picture at night", "complementary"),
             "other": ("rain pouring down", "contradictory")}  # fmt: skip
    text, relation = texts[kind]
    found = composer.relation("auto", space.encode([text]), space.encode(["a dog barking"]))
    assert found is not None and found.name == relation
