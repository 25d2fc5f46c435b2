"""What is kept: read as it was made, gone on with when interrupted, made again when damaged."""

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

ABOUT = {"what": "numbers"}


def row(i: int) -> list[np.ndarray]:
    """Two arrays that follow from a number."""
    return [np.full((i + 1, 3), i / 8, np.float16), np.arange(i, dtype=np.float16)]


def filled(folder: Path | None, blocks: int = 4) -> Store:
    """A store of blocks of two rows each."""
    store = Store(folder, ABOUT)
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
def test_rows_come_back(tmp_path: Path, kept: bool) -> None:
    store = filled(tmp_path / "s" if kept else None)
    store.finalize()
    assert_rows(store, 8)
    if kept:
        again = Store(tmp_path / "s", ABOUT)
        assert again.complete and again.blocks[2]["notes"] == {"first": 4}
        assert_rows(again, 8)
        assert {p.name for p in (tmp_path / "s").iterdir()} == {
            "about.json", "blocks.jsonl", "values.bin",
        }  # fmt: skip


def test_rows_lie_in_the_file(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    base: Any = store[3][0]
    while not isinstance(base, np.memmap):
        base = base.base
    assert Path(base.filename) == tmp_path / "s" / "values.bin"


def test_other_things_are_not_taken_for_these(tmp_path: Path) -> None:
    filled(tmp_path / "s").finalize()
    other = Store(tmp_path / "s", {"what": "other"})
    assert not other.complete and len(other) == 0


def test_what_was_interrupted_goes_on(tmp_path: Path) -> None:
    filled(tmp_path / "s", blocks=2)
    with (tmp_path / "s" / "values.bin").open("ab") as file:
        file.write(b"half a block")  # killed between the values and their note
    with (tmp_path / "s" / "blocks.jsonl").open("a") as file:
        file.write('{"end": 12')  # killed while noting
    begun = Store(tmp_path / "s", ABOUT)
    assert not begun.complete
    assert_rows(begun, 4)
    whole = filled(tmp_path / "s")
    whole.finalize()
    assert_rows(Store(tmp_path / "s", ABOUT), 8)


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "journal", "gone"])
def test_damage_is_found_and_made_again(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "s"
    filled(folder).finalize()
    values, journal = folder / "values.bin", folder / "blocks.jsonl"
    data = bytearray(values.read_bytes())
    if damage == "flip":
        stamp = values.stat()
        data[-9] ^= 1
        values.write_bytes(data)
        os.utime(values, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # not betrayed by its date
    elif damage == "cut":
        values.write_bytes(data[:-20])
    elif damage == "grow":
        values.write_bytes(data + b"more")
    elif damage == "journal":
        journal.write_text("no journal")
    else:
        values.unlink()
    store = Store(folder, ABOUT)
    kept = {"flip": 6, "cut": 6, "grow": 8, "journal": 0, "gone": 0}[damage]
    assert len(store) == kept and store.complete == (damage == "grow")
    if not store.complete:
        filled(folder).finalize()
    again = Store(folder, ABOUT)
    assert again.complete
    assert_rows(again, 8)


def test_numbers_too_large_for_half_precision() -> None:
    with pytest.raises(ValueError, match="up to 65504, and here is 70000"):
        to_half(np.array([1.0, 7e4], np.float32))


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    made: list[Store] = []
    with pytest.raises(DataError, match=r"need about 1000\.0 TB and .* free: give another"):
        Cache(tmp_path).get_or_create("x", ABOUT, "features", lambda: 1e15, made.append)
    assert not made


def test_every_weight_and_name_counts() -> None:
    state = {"a": torch.arange(4.0), "b": torch.zeros(2, dtype=torch.bfloat16)}
    found = {state_dict_digest(state)}
    found.add(state_dict_digest({"a": torch.arange(4.0) + 1e-6, "b": state["b"]}))
    found.add(state_dict_digest({"a": state["a"].double(), "b": state["b"]}))
    found.add(state_dict_digest({"c": state["a"], "b": state["b"]}))
    found.add(state_dict_digest({"a": state["a"].reshape(2, 2), "b": state["b"]}))
    assert len(found) == 5
    assert state_dict_digest(dict(reversed(state.items()))) in found


@pytest.fixture(scope="module")
def ear(tiny_clap: str) -> AudioProcessor:
    return AudioProcessor("clap_audio_model", load_backbone(tiny_clap)[1], 4)


def listened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is listened to from now on."""
    import align.preprocessing.features
    import align.preprocessing.parallel

    asked: list[Any] = []
    plain = align.preprocessing.parallel.listen

    def counting(ear: AudioProcessor, recording: Any) -> Any:
        asked.append(recording)
        return plain(ear, recording)

    for module in (align.preprocessing.features, align.preprocessing.parallel):
        monkeypatch.setattr(module, "extract_one", counting)
    return asked


def folder_of(folder: Path, count: int = 6, broken: int = 0) -> str:
    """Recordings of different pitch and wording; the last ones are none."""
    folder.mkdir(exist_ok=True)
    lines = ["file_name,caption"]
    for i in range(count):
        soundfile.write(folder / f"{i}.wav", tone(200 + 90 * i, 0.3), RATE)
        if i >= count - broken:
            (folder / f"{i}.wav").write_text("no sound")
        lines.append(f"{i}.wav,sound {i}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_features_depend_on_recordings_and_on_the_ear(
    ear: AudioProcessor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, cache = folder_of(tmp_path / "data"), Cache(tmp_path / "cache")

    def key(ear: AudioProcessor = ear) -> str:
        return extract_features(ear, load_rows(data, "train"), cache=cache).fingerprint

    first = key()
    assert "about" in capsys.readouterr().out  # its size, said before
    assert key() == first and "features: 6 from" in capsys.readouterr().out
    table = tmp_path / "data" / "metadata.csv"
    table.write_text(table.read_text().replace("sound 3", "another caption"))
    heard = extract_features(ear, load_rows(data, "train"), cache=cache)
    assert heard.fingerprint == first and heard.captions[3] == "another caption"
    soundfile.write(tmp_path / "data" / "3.wav", tone(999, 0.31), RATE)
    assert key() != first
    assert key(AudioProcessor(ear.model_type, ear.feature_extractor, 5)) != first


def test_an_interrupted_hearing_goes_on(
    ear: AudioProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import align.preprocessing.features
    import align.preprocessing.parallel

    monkeypatch.setattr(align.preprocessing.features, "BLOCK_ROWS", 2)
    rows = load_rows(folder_of(tmp_path / "data"), "train")
    whole = extract_features(ear, rows)
    asked: list[Any] = []
    plain = align.preprocessing.parallel.listen

    def failing(ear: AudioProcessor, recording: Any) -> Any:
        asked.append(recording)
        if len(asked) == 6:  # one for the size, then the fifth row
            raise KeyboardInterrupt
        return plain(ear, recording)

    for module in (align.preprocessing.features, align.preprocessing.parallel):
        monkeypatch.setattr(module, "extract_one", failing)
    with pytest.raises(KeyboardInterrupt):
        extract_features(ear, rows, cache=Cache(tmp_path / "cache"))
    asked[:] = asked[:0]
    heard = extract_features(ear, rows, cache=Cache(tmp_path / "cache"))
    assert [Path(r).name for r in asked[1:]] == ["4.wav", "5.wav"]
    assert len(heard) == len(whole) == 6
    for a, b in zip(heard.features, whole.features, strict=True):
        assert len(a) == len(b) == 1 and np.array_equal(a[0], b[0])


def test_what_was_left_out_stays_so(
    ear: AudioProcessor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = load_rows(folder_of(tmp_path / "data", 6, broken=1), "train")
    for _ in range(2):
        heard = extract_features(ear, rows, cache=Cache(tmp_path / "cache"))
        assert heard.captions == [f"sound {i}" for i in range(5)] and len(heard.features) == 5
        assert "left out: row 6: " in capsys.readouterr().out
    rows = load_rows(folder_of(tmp_path / "data", 6, broken=2), "train")
    for _ in range(2):  # what was refused is not kept either
        with pytest.raises(DataError, match="2 of 6 recordings cannot be used"):
            extract_features(ear, rows, cache=Cache(tmp_path / "cache"))


def test_recordings_not_heard_whole_are_counted_and_said_once(
    ear: AudioProcessor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(folder_of(tmp_path / "data"))
    for i in (2, 4):
        soundfile.write(data / f"{i}.wav", tone(300, 9.0), RATE)  # four windows of two seconds
    for _ in range(2):
        extract_features(ear, load_rows(str(data), "train"), cache=Cache(tmp_path / "cache"))
        said = [line for line in capsys.readouterr().out.splitlines() if "not heard" in line]
        assert said == [
            "2 of 6 recordings are damaged or not heard whole; the first: row 3: audio is "
            "truncated to its first 8 s (max_windows)"
        ]


def test_recordings_of_one_name_are_told_apart(tmp_path: Path) -> None:
    rows = load_rows(f"audiocaps@{hub_tables.audiocaps(tmp_path / 'a')}", "test")
    assert clip_names(rows) == ["id0 0"] * 5 + ["id1 30"] * 5
    # Two folders had a file of this name: the hub's tables keep no folders.
    rows = table_of(tmp_path / "b", (0, "1.flac"), (1, "1.flac"), (0, "1.flac"))
    assert clip_names(rows) == ["1.flac", "1.flac, row 2", "1.flac"]
    assert clip_names(rows.select([1, 2])) == ["1.flac", "1.flac, row 2"]


def test_recordings_without_a_name_are_known_by_their_content(tmp_path: Path) -> None:
    rows = table_of(tmp_path, (0, None), (1, None), (0, None), (2, "2.flac"))
    assert clip_names(rows) == ["row 1", "row 2", "row 1", "2.flac"]
    # As long and beginning alike is not the same.
    sounds = [hub_tables.sound(0)["bytes"] + end for end in (b"\0", b"\1", b"\0")]
    rows = Dataset.from_dict({"audio": [{"bytes": one, "path": None} for one in sounds]})
    assert clip_names(rows) == ["row 1", "row 2", "row 1"]


def table_of(folder: Path, *sounds: tuple[int, str | None]) -> Dataset:
    """Rows of a table with these recordings, by number, and what they are called there."""
    found = [{**hub_tables.sound(i), "path": path} for i, path in sounds]
    columns = {"audio": found, "caption": [f"caption {k}" for k in range(len(found))]}
    hub_tables.write(folder, "train", columns, hub_tables.text("caption"))
    return load_rows(str(folder), "train")


def test_a_recording_of_several_captions_is_heard_once(
    ear: AudioProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load_rows(f"audiocaps@{hub_tables.audiocaps(tmp_path / 'data')}", "test")
    alone = [extract_features(ear, rows.select([i])).features[0] for i in range(10)]
    asked = listened(monkeypatch)
    cache = Cache(tmp_path / "cache")
    heard = extract_features(ear, rows, cache=cache)
    assert len(asked) == 3  # one for the size, then both
    assert len(heard) == len(set(heard.captions)) == 10
    sounds, which = heard.unique_clips()
    assert len(sounds) == 2 and which == [0] * 5 + [1] * 5
    for found, wanted in zip(heard.features, alone, strict=True):
        assert len(found) == 1 and np.array_equal(found[0], wanted[0])
    # Another order of the captions, or fewer of them, asks for the same recordings.
    again = extract_features(ear, rows.select([3, 1, 9, 8]), cache=cache)
    assert len(asked) == 3 and again.fingerprint == heard.fingerprint
    assert again.captions[2] == "sound 1 in words 4" and again.unique_clips()[1] == [0, 0, 1, 1]


def test_rows_of_a_table_are_known_by_their_content(tmp_path: Path) -> None:
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
def test_cold_and_warm_train_the_same_weights(
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


def test_tokens_depend_on_the_weights(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    from align.preprocessing.audio_tokens import frozen_tokens

    opened = session(command(tiny_base, tiny_clap, sound_folder, tmp_path / "run"))
    cache = Cache(tmp_path / "cache")
    first = frozen_tokens(opened.encoder, opened.train_features, cache=cache)
    with torch.no_grad():
        next(opened.encoder.backbone.parameters()).add_(0.01)
    second = frozen_tokens(opened.encoder, opened.train_features, cache=cache)
    assert first.store.folder != second.store.folder and len(first) == len(second) == 12
    assert not np.array_equal(first[0][0], second[0][0])
    about = json.loads((first.store.folder / "about.json").read_text())  # type: ignore[operator]
    assert about["name"] == "tokens" and about["rows"] == 12
    shutil.rmtree(tmp_path / "cache")


@pytest.mark.parametrize("trained", ["none", "all"])
def test_captions_in_order_of_length(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, trained: str
) -> None:
    more = ("--order", "caption_length", "--train_backbone", trained)
    opened = session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *more))
    trainer = opened._trainer()
    rows = [row for _, row in trainer._get_train_sampler()]
    words = [len(opened.train_features.captions[row].split()) for row in rows]
    assert len(set(words)) > 1 and words == sorted(words)
    assert trainer.eval_dataset.caption_lengths is None
