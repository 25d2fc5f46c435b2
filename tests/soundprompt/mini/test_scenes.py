"""The synthetic retrieval dataset: unique captions, and audio that matches them."""

from __future__ import annotations

import numpy as np
import pytest

from align.data.loading import load_rows
from soundprompt.mini.scenes import Scene, all_scenes, scenes
from soundprompt.mini.sounds import SAMPLE_RATE, scene
from soundprompt.mini.world import CLASSES


def test_captions_are_unique() -> None:
    rows = load_rows("mini-retrieval", "test").with_format(None)
    assert len(set(rows["caption"])) == len(set(rows["label"])) == len(rows) == 1270
    assert not any(word in text for text in rows["caption"] for word in ("night", "red", "day"))
    lengths = [len(near) + len(far) for near, far in zip(rows["near"], rows["far"], strict=True)]
    assert [lengths.count(n) for n in (1, 2, 3)] == [10, 180, 1080]


def test_caption_names_sources_in_order() -> None:
    one = Scene(("dog", "rain"), ("rooster",))
    assert one.label == "dog then rain + rooster"
    captions = {one.caption(np.random.default_rng(i)) for i in range(600)}
    assert "a dog barking, then falling rain with a crowing rooster in the background" in captions
    assert len(captions) == 81
    assert all(text.index("dog") < text.index("rain") < text.index("roost") for text in captions)
    assert Scene(("dog",), ("rain",)).label == "dog + rain"


def test_splits_share_scenes_but_no_clips() -> None:
    train, test = (scenes(split, 1300).with_format(None) for split in ("train", "test"))
    assert not set(train["seed"]) & set(test["seed"])
    assert set(train["label"]) == set(test["label"]) == {one.label for one in all_scenes()}
    with pytest.raises(ValueError, match="no split 'dev'"):
        scenes("dev")


def test_audio_depends_on_the_seed() -> None:
    rows = scenes("test", 3)
    first, again = rows[1]["audio"], scenes("test", 3)[1]["audio"]
    assert first["sampling_rate"] == SAMPLE_RATE
    assert np.array_equal(first["array"], again["array"])
    assert not np.array_equal(first["array"], rows[2]["audio"]["array"])


def _energies(near: tuple[str, ...], far: tuple[str, ...]) -> np.ndarray:
    """Energies (10, 2) of both halves of ten clips."""
    clips = [scene(near, far, np.random.default_rng(seed)) for seed in range(10)]
    assert all(x.shape == (5 * SAMPLE_RATE,) and np.abs(x).max() <= 1 for x in clips)
    return np.array([[np.square(half).mean() for half in np.split(x, 2)] for x in clips])


def _pauses(near: tuple[str, ...], far: tuple[str, ...]) -> float:
    """Median level of quiet parts relative to the peak, over ten clips."""
    clips = [scene(near, far, np.random.default_rng(seed)) for seed in range(10)]
    return float(np.median([np.quantile(np.abs(x), 0.3) / np.abs(x).max() for x in clips]))


@pytest.mark.slow
def test_sequence_is_equally_loud_and_background_fills_pauses() -> None:
    ratio = _energies(("rain", "sea waves"), ()).T
    assert 0.3 < np.median(ratio[0] / ratio[1]) < 3
    alone, behind = (_pauses(("dog",), far) for far in ((), ("rain",)))
    assert behind > 2 * alone  # rain fills the pauses between barks


def test_order_is_audible() -> None:
    # A clock has high peaks relative to its level, the sea has not.
    def peak(half: np.ndarray) -> float:
        return float(np.abs(half).max() / np.sqrt(np.square(half).mean()))

    for near, ticking in ((("clock tick", "sea waves"), 0), (("sea waves", "clock tick"), 1)):
        for seed in range(10):
            halves = np.split(scene(near, (), np.random.default_rng(seed)), 2)
            assert int(np.argmax([peak(half) for half in halves])) == ticking


def test_all_classes_occur() -> None:
    assert {name for one in all_scenes() for name in one.near} == set(CLASSES)
    assert {name for one in all_scenes() for name in one.far} == set(CLASSES)
