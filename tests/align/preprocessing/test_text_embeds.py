"""Targets of many captions: read from the file where they lie, equal to those held in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from align.preprocessing.cache import Cache
from align.preprocessing.store import Store
from align.preprocessing.text_embeds import (
    CaptionEmbeds,
    LabelMixture,
    LazyTargets,
    standardized_targets,
)
from align.prompts.embeds import EmbedStatistics
from align.prompts.space import PromptSpace
from align.train import main
from tests.helpers.launches import assert_same_weights, command

CAPTIONS = ["rain", "a dog barking", "a fire", "rain", "a whistle", "a dog", "a low hum"]
LABELS = ["rain", "dog", "fire", "rain", "whistle", "dog", "dog"]


def mapped(tensor: torch.Tensor) -> Path | None:
    """The file that a tensor's numbers lie in."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        parts = line.split(maxsplit=5)
        start, end = (int(place, 16) for place in parts[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return Path(parts[5]) if len(parts) == 6 else None
    raise AssertionError("a tensor is somewhere")


def test_the_columns_of_a_store_lie_in_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [[rng.standard_normal((4, 3)), rng.standard_normal(5)] for _ in range(6)]
    for folder in (tmp_path / "s", None):
        store = Store(folder, {"what": "numbers"})
        store.append(rows[:4])
        store.append(rows[4:])
        first, second = store.columns()
        assert first.shape == (6, 4, 3) and second.shape == (6, 5)
        for i, row in enumerate(rows):
            assert np.array_equal(first[i], row[0].astype(np.float16))
            assert np.array_equal(second[i], row[1].astype(np.float16))
        if folder is not None:
            for column in (first, second):
                assert mapped(torch.from_numpy(column)) == folder / "values.bin"
        store.append([[np.zeros((2, 3)), np.zeros(5)]])
        with pytest.raises(ValueError, match="of the same shapes"):
            store.columns()


@pytest.fixture(scope="module")
def space(tiny_base: str) -> PromptSpace:
    return PromptSpace.from_pretrained(tiny_base)


def test_captions_that_are_kept_stay_in_their_file(space: PromptSpace, tmp_path: Path) -> None:
    table = CaptionEmbeds.encode(space, CAPTIONS, Cache(tmp_path))
    assert table.prompts.embeds.dtype == torch.float16
    where = mapped(table.prompts.embeds)
    assert where is not None and where.is_relative_to(tmp_path)
    assert table.captions == sorted(set(CAPTIONS)) and table.weights.tolist() == [1, 1, 1, 1, 1, 2]
    exact = space.encode(CAPTIONS).embeds.half().float()
    assert torch.equal(table.rows(CAPTIONS).embeds, exact)
    # What a run hears is a part of what it encodes: its statistics are its own.
    part = table.select(CAPTIONS[:3])
    assert part.prompts is table.prompts
    wanted = EmbedStatistics.of(exact[:3])
    for name, value in vars(part.statistics()["embeds"]).items():
        assert torch.equal(value, getattr(wanted, name)), name


@pytest.mark.parametrize("by_label", [True, False])
def test_targets_that_are_read_equal_those_that_are_held(
    space: PromptSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_label: bool
) -> None:
    table = CaptionEmbeds.encode(space, CAPTIONS, Cache(tmp_path))
    shares = LabelMixture(table.index(CAPTIONS), LABELS) if by_label else None
    about = table.prompts.embeds, table.statistics()["embeds"], shares
    held = standardized_targets(*about)
    assert isinstance(held, torch.Tensor)
    monkeypatch.setattr("align.preprocessing.text_embeds.MAX_IN_MEMORY_BYTES", held.numel() * 4 - 1)
    read = standardized_targets(*about)
    assert isinstance(read, LazyTargets)
    assert read.shape == held.shape and len(read) == len(held) == (4 if by_label else 6)
    which = torch.tensor([3, 0, 3, 1])
    assert read[which].dtype == torch.float32 and torch.equal(read[which], held[which])
    assert held.abs().max() > 0.5
    assert not list(read.parameters()) and not read.state_dict()
    if by_label:
        assert shares is not None
        means = shares.all_means(table.prompts.embeds)
        assert shares.names == ["dog", "fire", "rain", "whistle"]
        dogs = table.rows(["a dog barking", "a dog", "a low hum"]).embeds.mean(0)
        torch.testing.assert_close(means[0], dogs)
        assert torch.equal(table.statistics()["embeds"].standardize(means), held)


@pytest.mark.parametrize("target", ["label_mean", "caption"])
def test_a_run_that_reads_its_targets_gives_the_same_weights_and_figures(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made: list[LazyTargets] = []
    plain = LazyTargets.__getitem__

    def noted(self: LazyTargets, which: torch.Tensor) -> torch.Tensor:
        made.append(self)
        return plain(self, which)

    for name in ("held", "read"):
        if name == "read":
            for module in ("preprocessing.text_embeds", "evaluation.evaluator"):
                monkeypatch.setattr(f"align.{module}.MAX_IN_MEMORY_BYTES", 0)
            monkeypatch.setattr(LazyTargets, "__getitem__", noted)
        more = ["--target", target, "--cache_dir", str(tmp_path / "cache"), "--eval_strategy",
                "epoch", "--folds", "1", "2", "--eval_folds", "3"]  # fmt: skip
        main(command(tiny_base, tiny_clap, sound_folder, tmp_path / name, *more))
    assert len(made) > 6
    assert_same_weights(tmp_path / "held", tmp_path / "read")
    held, read = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("held", "read"))
    assert held.keys() == read.keys() and held["class_accuracy"] == read["class_accuracy"]
    for name, value in held.items():
        if isinstance(value, float):
            assert read[name] == pytest.approx(value, abs=2e-3), name
