"""Caption embeds and targets: memory-mapped_file ones equal those in memory."""

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


def mapped_file(tensor: torch.Tensor) -> Path | None:
    """Return the file that a tensor is mapped_file from, or None."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        parts = line.split(maxsplit=5)
        start, end = (int(place, 16) for place in parts[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return Path(parts[5]) if len(parts) == 6 else None
    raise AssertionError("the tensor is in no mapped_file region")


def test_store_columns_are_memory_mapped(tmp_path: Path) -> None:
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
                assert mapped_file(torch.from_numpy(column)) == folder / "values.bin"
        store.append([[np.zeros((2, 3)), np.zeros(5)]])
        with pytest.raises(ValueError, match="rows of the same shapes"):
            store.columns()


@pytest.fixture(scope="module")
def space(tiny_base: str) -> PromptSpace:
    return PromptSpace.from_pretrained(tiny_base)


def test_cached_embeds_are_memory_mapped(space: PromptSpace, tmp_path: Path) -> None:
    table = CaptionEmbeds.encode(space, CAPTIONS, Cache(tmp_path))
    assert table.prompts.embeds.dtype == torch.float16
    where = mapped_file(table.prompts.embeds)
    assert where is not None and where.is_relative_to(tmp_path)
    assert table.captions == sorted(set(CAPTIONS)) and table.weights.tolist() == [1, 1, 1, 1, 1, 2]
    # The same batch as in the cache: another one may round differently.
    unique = sorted(set(CAPTIONS))
    rows = [unique.index(caption) for caption in CAPTIONS]
    exact = space.encode(unique).embeds[rows].half().float()
    assert torch.equal(table.rows(CAPTIONS).embeds, exact)
    # A selection mixture the embeds and has its own statistics.
    part = table.select(CAPTIONS[:3])
    assert part.prompts is table.prompts
    expected = EmbedStatistics.of(exact[:3])
    for name, value in vars(part.statistics()["embeds"]).items():
        assert torch.equal(value, getattr(expected, name)), name


@pytest.mark.parametrize("by_label", [True, False])
def test_lazy_targets_match_in_memory_targets(
    space: PromptSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_label: bool
) -> None:
    table = CaptionEmbeds.encode(space, CAPTIONS, Cache(tmp_path))
    mixture = LabelMixture(table.index(CAPTIONS), LABELS) if by_label else None
    arguments = table.prompts.embeds, table.statistics()["embeds"], mixture
    in_memory = standardized_targets(*arguments)
    assert isinstance(in_memory, torch.Tensor)
    monkeypatch.setattr(
        "align.preprocessing.text_embeds.MAX_IN_MEMORY_BYTES", in_memory.numel() * 4 - 1
    )
    lazy = standardized_targets(*arguments)
    assert isinstance(lazy, LazyTargets)
    assert lazy.shape == in_memory.shape and len(lazy) == len(in_memory) == (4 if by_label else 6)
    indices = torch.tensor([3, 0, 3, 1])
    assert lazy[indices].dtype == torch.float32 and torch.equal(lazy[indices], in_memory[indices])
    assert in_memory.abs().max() > 0.5
    assert not list(lazy.parameters()) and not lazy.state_dict()
    if by_label:
        assert mixture is not None
        means = mixture.all_means(table.prompts.embeds)
        assert mixture.names == ["dog", "fire", "rain", "whistle"]
        dogs = table.rows(["a dog barking", "a dog", "a low hum"]).embeds.mean(0)
        torch.testing.assert_close(means[0], dogs)
        assert torch.equal(table.statistics()["embeds"].standardize(means), in_memory)


@pytest.mark.parametrize("target", ["label_mean", "caption"])
def test_lazy_targets_train_same_weights(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    accesses: list[LazyTargets] = []
    plain = LazyTargets.__getitem__

    def recording_getitem(self: LazyTargets, indices: torch.Tensor) -> torch.Tensor:
        accesses.append(self)
        return plain(self, indices)

    for name in ("in_memory", "lazy"):
        if name == "lazy":
            for module in ("preprocessing.text_embeds", "evaluation.evaluator"):
                monkeypatch.setattr(f"align.{module}.MAX_IN_MEMORY_BYTES", 0)
            monkeypatch.setattr(LazyTargets, "__getitem__", recording_getitem)
        more = ["--target", target, "--cache_dir", str(tmp_path / "cache"), "--eval_strategy",
                "epoch", "--folds", "1", "2", "--eval_folds", "3"]  # fmt: skip
        main(command(tiny_base, tiny_clap, sound_folder, tmp_path / name, *more))
    assert len(accesses) > 6
    assert_same_weights(tmp_path / "in_memory", tmp_path / "lazy")
    in_memory, lazy = (
        json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("in_memory", "lazy")
    )
    assert in_memory.keys() == lazy.keys() and in_memory["class_accuracy"] == lazy["class_accuracy"]
    for name, value in in_memory.items():
        if isinstance(value, float):
            assert lazy[name] == pytest.approx(value, abs=2e-3), name
