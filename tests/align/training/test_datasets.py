"""Training datasets: order, augmentation and padding depend on seed, epoch and row only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from align.config.arguments import AugmentArguments
from align.preprocessing.features import AudioFeatures
from align.training.augmentation import FeatureLayout
from align.training.datasets import EpochSampler, ExtraRows, FeatureDataset, TokenDataset, collate

LAYOUT = FeatureLayout(8, 10 / np.log(10))


def clips(levels: dict[str, list[float]], frames: int = 12) -> AudioFeatures:
    """Return clips of one window by label, each around a level in decibels."""
    rng = np.random.default_rng(0)
    features, labels = [], []
    for label, values in levels.items():
        for value in values:
            features.append([rng.normal(value, 0.1, (frames, 8)).astype(np.float32)])
            labels.append(label)
    names = [str(i) for i in range(len(labels))]
    return AudioFeatures(features, [f"caption {n}" for n in names], labels, names)


THREE = {"dog": [0.0, 1.0], "rain": [2.0, 3.0, 4.0], "sea": [5.0]}


def rows(seed: int = 0, **options: float) -> FeatureDataset:
    data = clips(THREE)
    return FeatureDataset(data, torch.arange(6), AugmentArguments(**options), LAYOUT, seed)


def order(sampler: EpochSampler, epoch: int) -> list[tuple[int, int]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_epoch_covers_every_row_once() -> None:
    for epoch in range(3):
        epoch_order = order(EpochSampler(range(50), 1), epoch)
        assert sorted(row for _, row in epoch_order) == list(range(50))
        assert {e for e, _ in epoch_order} == {epoch}
    assert len(EpochSampler(range(50), 1)) == 50


def test_order_depends_on_seed_and_epoch() -> None:
    used = EpochSampler(range(50), 1)
    first, second = order(used, 0), order(used, 1)
    assert order(used, 0) == first and order(EpochSampler(range(50), 1), 1) == second
    torch.manual_seed(9)
    np.random.seed(9)
    assert order(EpochSampler(range(50), 1), 1) == second
    rows_of = [[row for _, row in o] for o in (first, second, order(EpochSampler(range(50), 2), 0))]
    assert rows_of[0] != rows_of[1] and rows_of[0] != rows_of[2]
    assert rows_of[0] != list(range(50))


def test_augmentation_depends_on_seed_epoch_and_row() -> None:
    options = {
        "gain_db": 6.0,
        "time_shift": 1.0,
        "mix_same_label_prob": 0.5,
        "mix_other_label_prob": 0.5,
    }
    forward = rows(**options)
    backward = rows(**options)
    there = [(epoch, row) for epoch in range(3) for row in range(6)]
    one = {where: forward[where]["windows"][0] for where in there}
    two = {where: backward[where]["windows"][0] for where in reversed(there)}
    assert len(one) == 18
    for where in there:
        assert np.array_equal(one[where], two[where]), where
    assert not np.array_equal(one[0, 0], one[1, 0])
    assert not np.array_equal(one[0, 0], rows(seed=1, **options)[0, 0]["windows"][0])


def test_without_augmentation_features_are_unchanged() -> None:
    plain = rows()
    for row in range(6):
        item = plain[3, row]
        assert np.array_equal(item["windows"][0], plain.audio_features.features[row][0])
        assert np.array_equal(plain[row]["windows"][0], item["windows"][0])
        assert item["target"] == row
    assert plain.groups == [0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("option", "same"), [("mix_same_label_prob", True), ("mix_other_label_prob", False)]
)
def test_mixed_in_clip_has_the_right_label(option: str, same: bool) -> None:
    data = clips({"quiet": [0.0] * 4, "loud": [80.0] * 4})
    mixed = FeatureDataset(data, torch.zeros(8).long(), AugmentArguments(**{option: 1.0}), LAYOUT)
    for epoch in range(30):
        item = mixed[epoch, 1]
        rise = float((item["windows"][0] - data.features[1][0]).mean())
        # A clip at 80 dB, even 25 dB quieter, masks the quiet one.
        assert 0 < rise < 6 if same else rise > 50
        assert item["group"] == mixed.groups[1] and item["target"] == mixed.targets[1]


def test_single_label_has_no_other_clip_to_mix() -> None:
    data = clips({"dog": [0.0, 40.0]})
    mixed = FeatureDataset(
        data, torch.zeros(2).long(), AugmentArguments(mix_other_label_prob=1.0), LAYOUT
    )
    for epoch in range(5):
        assert np.array_equal(mixed[epoch, 0]["windows"][0], data.features[0][0])


def test_collate_pads_and_masks() -> None:
    windows = [np.full((frames, 8), frames, np.float32) for frames in (3, 5, 2)]
    items = [
        {"windows": windows[:2], "target": torch.tensor(7), "group": 1},
        {"windows": windows[2:], "target": torch.tensor(4), "group": 0},
    ]
    batch = collate(items)
    assert set(batch) == {"features", "features_mask", "target", "group"}
    assert batch["features"].shape == (2, 2, 5, 8)
    assert batch["features_mask"].sum(2).tolist() == [[3, 5], [2, 0]]
    assert (batch["features"][0, 0, :3] == 3).all() and (batch["features"][0, 1] == 5).all()
    assert not batch["features"][~batch["features_mask"]].any()
    assert batch["target"].tolist() == [7, 4] and batch["group"].tolist() == [1, 0]


def test_collate_of_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, mask = torch.randn(4, 6, 3, generator=generator), torch.ones(4, 6).bool()
    mask[2, 4:] = False
    rows = list(zip(tokens, mask, strict=True))
    data = TokenDataset(rows, torch.tensor([5, 6, 7, 8]), [0, 1, 0, 2])
    batch = collate([data[0, 2], data[1]])
    assert set(batch) == {"tokens", "tokens_mask", "target", "group"}
    assert torch.equal(batch["tokens"], tokens[[2, 1]])
    assert torch.equal(batch["tokens_mask"], mask[[2, 1]])
    assert batch["target"].tolist() == [7, 6] and batch["group"].tolist() == [0, 1]
    assert len(data) == 4


def test_caption_length_sorts_every_epoch() -> None:
    lengths = [3, 1, 2, 1, 3, 1, 2]
    data = TokenDataset([[torch.zeros(1, 2), torch.ones(1)]] * 7, torch.arange(7), [0] * 7, lengths)
    orders = [[row for _, row in order(EpochSampler(data, 1), epoch)] for epoch in range(4)]
    for rows_ in orders:
        assert sorted(rows_) == list(range(7))
        assert [lengths[row] for row in rows_] == sorted(lengths)
    assert any(rows_ != orders[0] for rows_ in orders[1:])  # shuffled among equal lengths
    data.caption_lengths = None
    assert [row for _, row in order(EpochSampler(data, 1), 0)] != orders[0]


def test_epoch_has_a_fraction_of_extra_rows() -> None:
    rows_ = [[torch.zeros(1, 2), torch.ones(1)]] * 26
    data = TokenDataset(rows_, torch.arange(26), [0] * 26, extra=ExtraRows(start=6, fraction=0.4))
    sampler = EpochSampler(data, 1)
    epochs = [[row for _, row in order(sampler, epoch)] for epoch in range(12)]
    for found in epochs:
        assert len(found) == len(sampler) == 10
        assert sorted(row for row in found if row < 6) == list(range(6))
        assert len(set(found)) == 10
    # A new sample every time: nearly all occur in twelve epochs.
    assert len({row for found in epochs for row in found}) > 22
    assert epochs[0] == [row for _, row in order(EpochSampler(data, 1), 0)]


def test_few_extra_rows_are_repeated() -> None:
    rows_ = [[torch.zeros(1, 2), torch.ones(1)]] * 8
    data = TokenDataset(rows_, torch.arange(8), [0] * 8, extra=ExtraRows(start=6, fraction=0.5))
    found = [row for _, row in order(EpochSampler(data, 1), 0)]
    assert len(found) == 12
    assert set(range(6)) < set(found)
    assert max(found.count(row) for row in (6, 7)) > 1


def test_fraction_below_one_extra_row_is_refused() -> None:
    assert ExtraRows(start=6, fraction=0.1).num_sampled == 1
    with pytest.raises(ValueError, match=r"fraction of 0\.05 with 6 rows is less than one row"):
        ExtraRows(start=6, fraction=0.05)
