"""Stores and cache: round trips, resuming after interruption, recovery from damage."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset

from align.data.errors import DataError
from align.data.loading import load_rows
from align.models.backbones.loading import load_backbone
from align.models.processing import AudioProcessor
from align.preprocessing.cache import Cache, state_dict_digest
from align.preprocessing.features import extract_features
from align.preprocessing.fingerprint import audio_fingerprint, clip_names
from align.preprocessing.store import Store, to_half
from align.train import main
from tests.conftest import RATE, tone
from tests.helpers import hub_tables
from tests.helpers.launches import assert_same_weights, command, session

KEY = {"what": "numbers"}


def row(i: int) -> list[np.ndarray]:
    """Return two arrays that depend on a number."""
    return [np.full((i + 1, 3), i / 8, np.float16), np.arange(i, dtype=np.float16)]


def fill_store(folder: Path | None, blocks: int = 4) -> Store:
    """Fill a store with blocks of two rows each."""
    store = Store(folder, KEY)
    for start in range(len(store), 2 * blocks, 2):
        store.append([row(start), row(start + 1)], first=start)
    return store


def assert_rows(store: Store, count: int) -> None:
    assert len(store) == count > 0
    for i, found in enumerate(store[0:count]):
        assert [a.shape for a in found] == [a.shape for a in row(i)]
        assert all(np.array_equal(a, b) for a, b in zip(found, row(i), strict=True))
        assert all(a.dtype == np.float16 for a in found)


@pytest.mark.parametrize("kept", [True, False])
def test_store_round_trip(tmp_path: Path, kept: bool) -> None:
    store = fill_store(tmp_path / "s" if kept else None)
    store.finalize()
    assert_rows(store, 8)
    if kept:
        again = Store(tmp_path / "s", KEY)
        assert again.complete and again.blocks[2]["notes"] == {"first": 4}
        assert_rows(again, 8)
        assert {p.name for p in (tmp_path / "s").iterdir()} == {
            "about.json", "blocks.jsonl", "values.bin",
        }  # fmt: skip


def test_store_rows_are_memory_mapped(tmp_path: Path) -> None:
    store = fill_store(tmp_path / "s")
    base: Any = store[3][0]
    while not isinstance(base, np.memmap):
        base = base.base
    assert Path(base.filename) == tmp_path / "s" / "values.bin"


def test_store_with_other_key_is_empty(tmp_path: Path) -> None:
    fill_store(tmp_path / "s").finalize()
    other = Store(tmp_path / "s", {"what": "other"})
    assert not other.complete and len(other) == 0


def test_interrupted_store_resumes(tmp_path: Path) -> None:
    fill_store(tmp_path / "s", blocks=2)
    with (tmp_path / "s" / "values.bin").open("ab") as file:
        file.write(b"half a block")  # interrupted between values and journal
    with (tmp_path / "s" / "blocks.jsonl").open("a") as file:
        file.write('{"end": 12')  # interrupted while writing the journal
    resumed = Store(tmp_path / "s", KEY)
    assert not resumed.complete
    assert_rows(resumed, 4)
    whole = fill_store(tmp_path / "s")
    whole.finalize()
    assert_rows(Store(tmp_path / "s", KEY), 8)


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "journal", "gone"])
def test_damaged_store_is_recomputed(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "s"
    fill_store(folder).finalize()
    values, journal = folder / "values.bin", folder / "blocks.jsonl"
    data = bytearray(values.read_bytes())
    if damage == "flip":
        stamp = values.stat()
        data[-9] ^= 1
        values.write_bytes(data)
        os.utime(values, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # keeps the modification time
    elif damage == "cut":
        values.write_bytes(data[:-20])
    elif damage == "grow":
        values.write_bytes(data + b"more")
    elif damage == "journal":
        journal.write_text("no journal")
    else:
        values.unlink()
    store = Store(folder, KEY)
    kept = {"flip": 6, "cut": 6, "grow": 8, "journal": 0, "gone": 0}[damage]
    assert len(store) == kept and store.complete == (damage == "grow")
    if not store.complete:
        fill_store(folder).finalize()
    again = Store(folder, KEY)
    assert again.complete
    assert_rows(again, 8)


def test_to_half_overflow_raises() -> None:
    with pytest.raises(ValueError, match="up to 65504, but one is 70000"):
        to_half(np.array([1.0, 7e4], np.float32))


def test_cache_without_disk_space_raises(tmp_path: Path) -> None:
    created: list[Store] = []
    with pytest.raises(DataError, match=r"need about 1000\.0 TB and .* free: give another"):
        Cache(tmp_path).get_or_create("x", KEY, "features", lambda: 1e15, created.append)
    assert not created


def test_state_dict_digest_depends_on_names_and_values() -> None:
    state = {"a": torch.arange(4.0), "b": torch.zeros(2, dtype=torch.bfloat16)}
    found = {state_dict_digest(state)}
    found.add(state_dict_digest({"a": torch.arange(4.0) + 1e-6, "b": state["b"]}))
    found.add(state_dict_digest({"a": state["a"].double(), "b": state["b"]}))
    found.add(state_dict_digest({"c": state["a"], "b": state["b"]}))
    found.add(state_dict_digest({"a": state["a"].reshape(2, 2), "b": state["b"]}))
    assert len(found) == 5
    assert state_dict_digest(dict(reversed(state.items()))) in found


@pytest.fixture(scope="module")
def processor(tiny_clap: str) -> AudioProcessor:
    return AudioProcessor("clap_audio_model", load_backbone(tiny_clap)[1], 4)


def record_extractions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the audio that features are extracted from."""
    import align.preprocessing.features
    import align.preprocessing.parallel

    extracted: list[Any] = []
    plain = align.preprocessing.parallel.extract_one

    def counting(processor: AudioProcessor, audio: Any) -> Any:
        extracted.append(audio)
        return plain(processor, audio)

    for module in (align.preprocessing.features, align.preprocessing.parallel):
        monkeypatch.setattr(module, "extract_one", counting)
    return extracted


def write_clips(folder: Path, count: int = 6, broken: int = 0) -> str:
    """Write clips of different pitch and caption; the last ones are broken."""
    folder.mkdir(exist_ok=True)
    lines = ["file_name,caption"]
    for i in range(count):
        soundfile.write(folder / f"{i}.wav", tone(200 + 90 * i, 0.3), RATE)
        if i >= count - broken:
            (folder / f"{i}.wav").write_text("not audio")
        lines.append(f"{i}.wav,sound {i}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_features_fingerprint_depends_on_audio_and_processor(
    processor: AudioProcessor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, cache = write_clips(tmp_path / "data"), Cache(tmp_path / "cache")

    def key(processor: AudioProcessor = processor) -> str:
        return extract_features(processor, load_rows(data, "train"), cache=cache).fingerprint

    first = key()
    assert "about" in capsys.readouterr().out  # the size estimate
    assert key() == first and "features: 6 from" in capsys.readouterr().out
    table = tmp_path / "data" / "metadata.csv"
    table.write_text(table.read_text().replace("sound 3", "another caption"))
    features = extract_features(processor, load_rows(data, "train"), cache=cache)
    assert features.fingerprint == first and features.captions[3] == "another caption"
    soundfile.write(tmp_path / "data" / "3.wav", tone(999, 0.31), RATE)
    assert key() != first
    assert key(AudioProcessor(processor.model_type, processor.feature_extractor, 5)) != first


def test_interrupted_extraction_resumes(
    processor: AudioProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import align.preprocessing.features
    import align.preprocessing.parallel

    monkeypatch.setattr(align.preprocessing.features, "BLOCK_ROWS", 2)
    rows = load_rows(write_clips(tmp_path / "data"), "train")
    whole = extract_features(processor, rows)
    extracted: list[Any] = []
    plain = align.preprocessing.parallel.extract_one

    def failing(processor: AudioProcessor, audio: Any) -> Any:
        extracted.append(audio)
        if len(extracted) == 6:  # one for the size estimate, then the fifth row
            raise KeyboardInterrupt
        return plain(processor, audio)

    for module in (align.preprocessing.features, align.preprocessing.parallel):
        monkeypatch.setattr(module, "extract_one", failing)
    with pytest.raises(KeyboardInterrupt):
        extract_features(processor, rows, cache=Cache(tmp_path / "cache"))
    extracted[:] = extracted[:0]
    features = extract_features(processor, rows, cache=Cache(tmp_path / "cache"))
    assert [Path(r).name for r in extracted[1:]] == ["4.wav", "5.wav"]
    assert len(features) == len(whole) == 6
    for a, b in zip(features.features, whole.features, strict=True):
        assert len(a) == len(b) == 1 and np.array_equal(a[0], b[0])


def test_cached_errors_are_reported_again(
    processor: AudioProcessor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = load_rows(write_clips(tmp_path / "data", 6, broken=1), "train")
    for _ in range(2):
        features = extract_features(processor, rows, cache=Cache(tmp_path / "cache"))
        assert features.captions == [f"sound {i}" for i in range(5)] and len(features.features) == 5
        assert "skipped: row 6: " in capsys.readouterr().out
    rows = load_rows(write_clips(tmp_path / "data", 6, broken=2), "train")
    for _ in range(2):  # failed extractions are not cached
        with pytest.raises(DataError, match="2 of 6 clips cannot be used"):
            extract_features(processor, rows, cache=Cache(tmp_path / "cache"))


def test_truncated_clips_are_reported_once(
    processor: AudioProcessor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(write_clips(tmp_path / "data"))
    for i in (2, 4):
        soundfile.write(data / f"{i}.wav", tone(300, 9.0), RATE)  # four windows of two seconds
    for _ in range(2):
        extract_features(processor, load_rows(str(data), "train"), cache=Cache(tmp_path / "cache"))
        messages = [line for line in capsys.readouterr().out.splitlines() if "damaged or" in line]
        assert messages == [
            "2 of 6 clips are damaged or were truncated; the first: row 3: audio is "
            "truncated to its first 8 s (max_windows)"
        ]


def test_clip_names_distinguish_equal_paths(tmp_path: Path) -> None:
    rows = load_rows(f"audiocaps@{hub_tables.audiocaps(tmp_path / 'a')}", "test")
    assert clip_names(rows) == ["id0 0"] * 5 + ["id1 30"] * 5
    # Tables on the Hub store file names without folders.
    rows = write_table(tmp_path / "b", (0, "1.flac"), (1, "1.flac"), (0, "1.flac"))
    assert clip_names(rows) == ["1.flac", "1.flac, row 2", "1.flac"]
    assert clip_names(rows.select([1, 2])) == ["1.flac", "1.flac, row 2"]


def test_clip_names_without_paths_use_content(tmp_path: Path) -> None:
    rows = write_table(tmp_path, (0, None), (1, None), (0, None), (2, "2.flac"))
    assert clip_names(rows) == ["row 1", "row 2", "row 1", "2.flac"]
    # Same length and prefix, but different content.
    clips = [hub_tables.sound(0)["bytes"] + end for end in (b"\0", b"\1", b"\0")]
    rows = Dataset.from_dict({"audio": [{"bytes": one, "path": None} for one in clips]})
    assert clip_names(rows) == ["row 1", "row 2", "row 1"]


def write_table(folder: Path, *clips: tuple[int, str | None]) -> Dataset:
    """Write a table of clips, given by number and file name."""
    found = [{**hub_tables.sound(i), "path": path} for i, path in clips]
    columns = {"audio": found, "caption": [f"caption {k}" for k in range(len(found))]}
    hub_tables.write(folder, "train", columns, hub_tables.text("caption"))
    return load_rows(str(folder), "train")


def test_clip_with_several_captions_is_extracted_once(
    processor: AudioProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load_rows(f"audiocaps@{hub_tables.audiocaps(tmp_path / 'data')}", "test")
    alone = [extract_features(processor, rows.select([i])).features[0] for i in range(10)]
    extracted = record_extractions(monkeypatch)
    cache = Cache(tmp_path / "cache")
    features = extract_features(processor, rows, cache=cache)
    assert len(extracted) == 3  # one for the size estimate, then both clips
    assert len(features) == len(set(features.captions)) == 10
    clips, indices = features.unique_clips()
    assert len(clips) == 2 and indices == [0] * 5 + [1] * 5
    for found, expected in zip(features.features, alone, strict=True):
        assert len(found) == 1 and np.array_equal(found[0], expected[0])
    # Another order or a subset of the captions uses the same clips.
    again = extract_features(processor, rows.select([3, 1, 9, 8]), cache=cache)
    assert len(extracted) == 3 and again.fingerprint == features.fingerprint
    assert again.captions[2] == "sound 1 in words 4" and again.unique_clips()[1] == [0, 0, 1, 1]


def test_audio_fingerprint_depends_on_content(tmp_path: Path) -> None:
    rows = load_rows(f"audiocaps@{hub_tables.audiocaps(tmp_path / 'a')}", "train")
    same = load_rows(f"audiocaps@{hub_tables.audiocaps(tmp_path / 'b')}", "train")
    assert audio_fingerprint(rows) == audio_fingerprint(same)
    assert audio_fingerprint(rows.select([0, 2])) == audio_fingerprint(same.select([0, 2]))
    assert audio_fingerprint(rows.select([0, 2])) != audio_fingerprint(rows.select([0, 1]))
    mini = load_rows("mini", "test").select(range(20))
    assert audio_fingerprint(mini) == audio_fingerprint(load_rows("mini", "test").select(range(20)))
    assert audio_fingerprint(mini) != audio_fingerprint(
        load_rows("mini", "train").select(range(20))
    )


@pytest.mark.parametrize("adapter", ["resampler", pytest.param("conv", marks=pytest.mark.slow)])
def test_cached_run_trains_same_weights(
    tiny_base: str, tiny_w2v_bert: str, sound_folder: Path, tmp_path: Path, adapter: str
) -> None:
    runs = {"cold": "true", "warm": "true", "none": "false"}
    for name, cache in runs.items():
        more = ["--cache_dir", str(tmp_path / "cache"), "--cache", cache, "--adapter", adapter]
        main(command(tiny_base, tiny_w2v_bert, sound_folder, tmp_path / name, *more))
    assert_same_weights(tmp_path / "cold", tmp_path / "warm")
    assert_same_weights(tmp_path / "cold", tmp_path / "none")
    kinds = {path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert kinds == {"features", "tokens", "captions"}


def test_frozen_tokens_depend_on_weights(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    from align.preprocessing.audio_tokens import frozen_tokens

    opened = session(command(tiny_base, tiny_clap, sound_folder, tmp_path / "run"))
    cache = Cache(tmp_path / "cache")
    first = frozen_tokens(opened.encoder, opened.train_features, cache=cache)
    with torch.no_grad():
        weight = next(opened.encoder.backbone.parameters())
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    second = frozen_tokens(opened.encoder, opened.train_features, cache=cache)
    assert first.store.folder != second.store.folder and len(first) == len(second) == 12
    assert not np.array_equal(first[0][0], second[0][0])
    about = json.loads((first.store.folder / "about.json").read_text())  # type: ignore[operator]
    assert about["name"] == "tokens" and about["rows"] == 12
    shutil.rmtree(tmp_path / "cache")


@pytest.mark.parametrize("train_backbone", ["none", "all"])
def test_order_caption_length_sorts_rows(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, train_backbone: str
) -> None:
    more = ("--order", "caption_length", "--train_backbone", train_backbone)
    opened = session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *more))
    trainer = opened._trainer()
    rows = [row for _, row in trainer._get_train_sampler()]
    words = [len(opened.train_features.captions[row].split()) for row in rows]
    assert len(set(words)) > 1 and words == sorted(words)
    assert trainer.eval_dataset.caption_lengths is None
