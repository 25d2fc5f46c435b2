"""Streamed datasets: order by seed and epoch, filters, errors, resuming."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.audio.waveform import read
from align.config.arguments import AugmentArguments
from align.data.errors import DataError
from align.data.loading import load_rows
from align.data.streaming import Stream, load_stream
from align.models.backbones.loading import load_backbone
from align.models.processing import AudioProcessor
from align.preprocessing.features import extract_features
from align.train import main
from align.training.augmentation import FeatureLayout
from align.training.datasets import StreamingFeatureDataset
from tests.conftest import RATE
from tests.helpers import hub_tables
from tests.helpers.launches import assert_same_weights, command, session, weights


@pytest.fixture(autouse=True)
def no_shutdown_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the five seconds that `datasets` waits for its threads after every iteration."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.01, raising=False)


def epoch_captions(stream: Stream, seed: int = 0, epoch: int = 0) -> list[str]:
    """Return the captions of an epoch in order."""
    return [caption for _, caption, _ in stream.iterate(seed, epoch)]


@pytest.mark.parametrize("where", ["hub", "folder"])
def test_stream_yields_every_row_once_per_epoch(
    tmp_path: Path, sound_folder: Path, where: str
) -> None:
    data = f"fsd50k@{hub_tables.fsd50k(tmp_path)}" if where == "hub" else str(sound_folder)
    stream = load_stream(data, "train", buffer_size=3)
    rows = load_rows(data, "train")
    assert stream.captions == list(rows["caption"]) and stream.labels == list(rows["label"])
    orders = [epoch_captions(stream, 0, epoch) for epoch in range(4)]
    assert all(sorted(order) == sorted(rows["caption"]) for order in orders)
    assert any(order != orders[0] for order in orders[1:])
    assert epoch_captions(stream, 0, 2) == orders[2]
    found = {caption: audio for audio, caption, _ in stream.iterate(0, 1)}
    own = {row["caption"]: row["audio"] for row in rows}
    if where == "hub":
        for caption in set(own):
            samples = read(found[caption], RATE)
            candidates = [read(r["audio"], RATE) for r in rows if r["caption"] == caption]
            assert any(np.array_equal(samples, other) for other in candidates)
    else:
        assert all(Path(path).is_file() for path in found.values())


def test_stream_folds_and_licenses(tmp_path: Path) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path / 'a')}"
    stream = load_stream(name, "train", licenses=["cc0", "cc-by"])
    assert len(stream) == 4 and sorted(epoch_captions(stream)) == sorted(stream.captions)
    with pytest.raises(DataError, match=r"no row of .* has the license mit"):
        load_stream(name, "train", licenses=["mit"])
    name = f"esc50@{hub_tables.esc50(tmp_path / 'b')}"
    stream = load_stream(name, "train", folds=[2])
    assert len(stream) == 3 and sorted(epoch_captions(stream)) == sorted(stream.captions)
    with pytest.raises(DataError, match=r"has no fold 9; it has \['1', '2', '3'\]"):
        load_stream(name, "train", folds=[2, 9])
    with pytest.raises(DataError, match="has no column caption"):
        load_stream(hub_tables.class_labels(tmp_path / "c"), "train")


@pytest.fixture(scope="module")
def processor(tiny_clap: str) -> AudioProcessor:
    return AudioProcessor("clap_audio_model", load_backbone(tiny_clap)[1], 4)


def streaming_dataset(
    processor: AudioProcessor, stream: Stream, num_workers: int = 1, **augmentation: float
) -> StreamingFeatureDataset:
    count = len(stream)
    given = AugmentArguments(**augmentation)
    scale = FeatureLayout(16, 10 / np.log(10))
    return StreamingFeatureDataset(
        processor, stream, torch.arange(count), list(range(count)), given, scale, 0, num_workers
    )


def test_streamed_features_match_extract_features(
    processor: AudioProcessor, sound_folder: Path
) -> None:
    rows = load_rows(str(sound_folder), "train").select([0, 1, 2])
    features = extract_features(processor, rows)

    def iterate(seed: int, epoch: int) -> Any:
        return ((row["audio"], row["caption"], row["label"]) for row in rows)

    stream = Stream(list(rows["caption"]), list(rows["label"]), iterate)
    items = list(streaming_dataset(processor, stream))
    assert [int(item["target"]) for item in items] == [0, 1, 2]
    assert [item["group"] for item in items] == [0, 1, 2]
    for item, windows in zip(items, features.features, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(item["windows"], windows, strict=True))


def test_stream_augmentation_depends_on_seed_epoch_and_row(
    processor: AudioProcessor, sound_folder: Path
) -> None:
    stream = load_stream(str(sound_folder), "train")
    one, two = (streaming_dataset(processor, stream, gain_db=6.0) for _ in range(2))
    first, again = list(one), list(two)
    two.set_epoch(1)
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a["windows"][0], b["windows"][0])
    other = next(iter(two))
    assert not any(np.array_equal(item["windows"][0], other["windows"][0]) for item in first)


def broken_stream(folder: Path, sound_folder: Path, broken: set[int], count: int = 40) -> Stream:
    (folder / "text.wav").write_text("not audio")
    places = [folder / "text.wav" if i in broken else sound_folder / "1.wav" for i in range(count)]
    captions = [f"caption {i}" for i in range(count)]

    def iterate(seed: int, epoch: int) -> Any:
        return ((str(p), c, c) for p, c in zip(places, captions, strict=True))

    return Stream(captions, captions, iterate)


@pytest.mark.parametrize("broken", [{0, 1}, {7, 39}])
def test_stream_replaces_broken_clips(
    processor: AudioProcessor, tmp_path: Path, sound_folder: Path, broken: set[int],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    items = list(streaming_dataset(processor, broken_stream(tmp_path, sound_folder, broken)))
    assert len(items) == 40  # the epoch length is constant
    assert {int(item["target"]) for item in items} == set(range(40)) - broken
    messages = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(messages) == 2 and all("text.wav" in line for line in messages)
    assert all(line.startswith("skipped: ") for line in messages)


def test_stream_too_many_errors_raise(
    processor: AudioProcessor, tmp_path: Path, sound_folder: Path
) -> None:
    stream = broken_stream(tmp_path, sound_folder, {1, 5, 9})
    with pytest.raises(DataError, match="3 of 40 clips cannot be used"):
        list(streaming_dataset(processor, stream))


@pytest.mark.slow
def test_stream_workers_match(
    processor: AudioProcessor, tmp_path: Path, sound_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.training.datasets.MIN_ROWS_FOR_WORKERS", 40)
    plain = broken_stream(tmp_path, sound_folder, {0, 17})
    read: list[int] = []

    def iterate(seed: int, epoch: int) -> Any:
        rows = list(plain.iterate(seed, epoch))
        for place in np.random.default_rng([seed, epoch]).permutation(40).tolist():
            read.append(place)
            yield rows[place]

    stream = Stream(plain.captions, plain.labels, iterate)
    one, two = (
        streaming_dataset(processor, stream, num_workers, gain_db=6.0) for num_workers in (1, 2)
    )
    pools = set()
    for epoch in (0, 1):
        for rows in (one, two):
            rows.set_epoch(epoch)
        alone, together = list(one), list(two)
        assert len(alone) == len(together) == 40
        assert [int(row["target"]) for row in together] == [int(row["target"]) for row in alone]
        for a, b in zip(alone, together, strict=True):
            windows = zip(a["windows"], b["windows"], strict=True)
            assert all(np.array_equal(w, v) for w, v in windows)
        pools.add(id(two._pool._pool))
    assert len(pools) == 1 and one._pool._pool is None  # started once
    # A consumer that stops early has read no more than the prefetched rows.
    read.clear()
    some = iter(two)
    first = [int(next(some)["target"]) for _ in range(3)]
    some.close()
    assert first == [int(row["target"]) for row in alone[:3]]
    assert 3 <= len(read) <= 3 + 2 + 4 * 2 + 1
    assert len(list(two)) == 40


def flags(*more: str) -> tuple[str, ...]:
    return (
        "--streaming", "true", "--folds", "1", "2", "--eval_folds", "3",
        "--shuffle_buffer_size", "4", "--per_device_train_batch_size", "2",
        "--save_strategy", "steps", "--save_steps", "3",
        "--adapter_dropout", "0.2", *more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(
            ("--train_backbone", "all", "--gain_db", "6", "--time_shift", "1"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("--num_workers", "2"), marks=pytest.mark.slow),
    ],
    ids=["frozen", "augmented", "two processes"],
)
def test_resumed_streaming_run_matches_uninterrupted(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, more: tuple[str, ...],
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("align.training.datasets.MIN_ROWS_FOR_WORKERS", 8)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main(command(tiny_base, tiny_clap, sound_folder, whole, *flags(*more)))
    last = max(int(path.name.partition("-")[2]) for path in whole.glob("checkpoint-*"))
    early = min(int(path.name.partition("-")[2]) for path in whole.glob("checkpoint-*"))
    assert early % 5 and early < last  # in the middle of an epoch of five steps
    broken.mkdir()
    shutil.copytree(whole / f"checkpoint-{early}", broken / f"checkpoint-{early}")
    capsys.readouterr()
    main(command(tiny_base, tiny_clap, sound_folder, broken, *flags(*more)))
    assert str(broken / f"checkpoint-{early}") in capsys.readouterr().out
    assert_same_weights(whole, broken)
    before = weights(whole / f"checkpoint-{early}")
    assert any(not torch.equal(before[n], tensor) for n, tensor in weights(whole).items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--streaming", "true"), "--eval_dataset"),
        (flags("--train_backbone", "all", "--mix_same_label_prob", "0.5"), "--mix_same_label_prob"),
        (flags("--dataloader_num_workers", "2"), "--dataloader_num_workers"),
    ],
)
def test_unsupported_streaming_options_raise(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, more: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    with pytest.raises(ValueError, match=message):
        session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *more))
