"""Load datasets as rows and extract features; errors of unusable data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from align.config.arguments import DataArguments
from align.data.errors import DataError
from align.data.loading import load_rows
from align.data.splits import load_eval_dataset, load_train_dataset
from align.models.processing import AudioProcessor
from align.preprocessing.features import extract_features
from soundprompt.mini.dataset import ROWS
from tests.conftest import RATE, tone


def write_csv(folder: Path, *lines: str) -> str:
    """Write a folder with one audio file and metadata.csv."""
    soundfile.write(folder / "a.wav", tone(440, 0.2), RATE)
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_load_rows_csv(sound_folder: Path) -> None:
    rows = load_rows(str(sound_folder), "train")
    assert rows.column_names == ["audio", "caption", "label", "row"]
    assert len(rows) == 12
    assert rows[1] == {
        "audio": str(sound_folder / "1.wav"), "caption": "a tone", "label": "middle",
        "row": 2,
    }  # fmt: skip


def test_load_rows_jsonl_with_column_options(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 0.2), RATE)
    row = {"where": "a.wav", "text": "a hum, a long one", "kind": 7}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    rows = load_rows(
        str(tmp_path), "train", audio_column="where", caption_column="text", label_column="kind"
    )
    assert rows[0] == {
        "audio": str(tmp_path / "a.wav"), "caption": "a hum, a long one", "label": "7",
        "row": 1,
    }  # fmt: skip


def test_load_rows_expands_home(sound_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from align.config.arguments import DataArguments

    monkeypatch.setenv("HOME", str(sound_folder.parent))
    options = DataArguments(dataset=f"~/{sound_folder.name}")
    assert len(load_train_dataset(options)) == 12
    rows, name = load_eval_dataset(options)
    assert rows is None and "training clips themselves" in name


def test_load_rows_without_labels_uses_captions(tmp_path: Path) -> None:
    data = write_csv(tmp_path, "file_name,caption", "a.wav,a hum", "a.wav,a buzz")
    assert load_rows(data, "train")["label"] == ["a hum", "a buzz"]


def test_load_rows_empty_label_uses_caption(tmp_path: Path) -> None:
    lines = ("file_name,caption,label", "a.wav,a hum,hum", "a.wav,a buzz,", "a.wav,a dog,")
    data = write_csv(tmp_path, *lines)
    assert load_rows(data, "train")["label"] == ["hum", "a buzz", "a dog"]


def test_load_rows_folds(sound_folder: Path) -> None:
    first = load_rows(str(sound_folder), "train", folds=[1])
    rest = load_rows(str(sound_folder), "train", folds=[2, 3])
    names = [[Path(r).name for r in rows["audio"]] for rows in (first, rest)]
    assert names[0] == ["0.wav", "1.wav", "2.wav", "9.wav", "10.wav", "11.wav"]
    assert not set(names[0]) & set(names[1]) and len(names[0] + names[1]) == 12


def test_load_eval_dataset_folds(sound_folder: Path) -> None:
    from align.config.arguments import DataArguments

    options = DataArguments(dataset=str(sound_folder), folds=[1, 2], eval_folds=[3])
    rows, name = load_eval_dataset(options)
    assert rows is not None and name == f"{sound_folder}, folds 3"
    assert {Path(r).name for r in rows["audio"]} == {"6.wav", "7.wav", "8.wav"}
    assert not set(rows["audio"]) & set(load_train_dataset(options)["audio"])


def test_load_eval_dataset_folds_of_another_folder(sound_folder: Path, tmp_path: Path) -> None:
    from align.config.arguments import DataArguments

    other = write_csv(tmp_path, "file_name,caption,fold", "a.wav,a hum,1", "a.wav,a buzz,2")
    options = DataArguments(dataset=str(sound_folder), eval_dataset=other, eval_folds=[2])
    rows, name = load_eval_dataset(options)
    assert rows is not None and rows["caption"] == ["a buzz"]
    assert name == f"{other}, folds 2"


@pytest.mark.parametrize("folds", [None, [1, 3]])
def test_overlapping_folds_raise(sound_folder: Path, folds: list[int] | None) -> None:
    from align.config.arguments import DataArguments

    with pytest.raises(ValueError, match="no fold in both"):
        DataArguments(dataset=str(sound_folder), folds=folds, eval_folds=[3])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("path,caption", "a.wav,a hum"), "no column file_name; it has: path, caption"),
        (("path,text", "a.wav,a hum"), "no column file_name and no column caption"),
        (("file_name,caption",), "metadata.csv is empty: it needs column names and at least two"),
        (("file_name,caption", "a.wav,a hum", "a.wav,"), "1 of 2 rows .* no caption.* row 2"),
        (("file_name,caption", "a.wav,a hum", 'a.wav," "'), "1 of 2 rows .* no caption.* row 2"),
        (("file_name,caption", "b.wav,a hum", "c.wav,a hum"), "none of the 2 files .* exists"),
    ],
)
def test_load_rows_invalid_table_raises(
    tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_rows(write_csv(tmp_path, *lines), "train")


def test_load_rows_missing_fold_raises(sound_folder: Path) -> None:
    with pytest.raises(DataError, match=r"has no fold 9; it has \['1', '2', '3'\]"):
        load_rows(str(sound_folder), "train", folds=[1, 9])


def test_load_rows_without_fold_column_raises(tmp_path: Path) -> None:
    data = write_csv(tmp_path, "file_name,caption", "a.wav,a hum")
    for name in (data, "mini"):
        with pytest.raises(DataError, match="has no column fold"):
            load_rows(name, "train", folds=[1])


def test_load_rows_without_metadata_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no metadata.csv and no metadata.jsonl.*file_name"):
        load_rows(str(tmp_path), "train")


def test_load_rows_malformed_metadata_raises(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text("this is not a table\n")
    with pytest.raises(DataError, match=r"metadata.jsonl cannot be read as a table"):
        load_rows(str(tmp_path), "train")


def test_load_rows_unknown_name_lists_names() -> None:
    with pytest.raises(DataError) as caught:
        load_rows("minni", "train")
    message = str(caught.value)
    assert "there is no dataset 'minni'" in message
    assert "mini, mini-mixtures" in message and "did you mean 'mini'?" in message
    assert "\n" not in message


def test_load_rows_mini() -> None:
    train, test = load_rows("mini", "train"), load_rows("mini", "test")
    assert (len(train), len(test)) == (ROWS["train"], ROWS["test"])
    assert len(set(train.with_format(None)["label"])) == 10
    row = train[0]
    assert row["audio"]["sampling_rate"] == 24_000
    assert np.abs(row["audio"]["array"]).max() > 0.01
    again = load_rows("mini", "train")[0]
    assert np.array_equal(row["audio"]["array"], again["audio"]["array"])
    assert not set(train.with_format(None)["seed"]) & set(test.with_format(None)["seed"])
    mixtures = load_rows("mini-mixtures", "test").with_format(None)
    assert all(" + " in label for label in mixtures["label"])


def test_load_rows_missing_split_raises() -> None:
    with pytest.raises(ValueError, match=r"no split 'validation'.* train, test"):
        load_rows("mini", "validation")


@pytest.fixture(scope="module")
def processor(tiny_clap: str) -> AudioProcessor:
    from transformers import ClapFeatureExtractor

    return AudioProcessor("clap_audio_model", ClapFeatureExtractor.from_pretrained(tiny_clap), 4)


def forty_rows(folder: Path, *broken: str) -> str:
    """Write forty rows with one clip each, starting with the broken ones."""
    for i in range(40):
        soundfile.write(folder / f"good{i}.wav", tone(440, 0.2), RATE)
    (folder / "text.wav").write_text("not audio")
    (folder / "empty.wav").write_bytes(b"")
    nan = np.full(2400, np.nan, np.float32)
    soundfile.write(folder / "nan.wav", nan, RATE, subtype="FLOAT")
    names = [*broken, *[f"good{i}.wav" for i in range(len(broken), 40)]]
    lines = [f"{name},caption {i},label {i}" for i, name in enumerate(names)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,caption,label", *lines]) + "\n")
    return str(folder)


@pytest.mark.parametrize("name", ["text.wav", "empty.wav", "nan.wav", "missing.wav"])
def test_extract_features_skips_broken_clip(
    tmp_path: Path, processor: AudioProcessor, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    features = extract_features(processor, load_rows(forty_rows(tmp_path, name, name), "train"))
    messages = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(messages) == 1  # one clip with two captions
    assert messages[0].startswith("skipped: row 1: ") and name in messages[0]
    assert len(features) == len(features.captions) == len(features.labels) == 38
    assert features.captions[0] == "caption 2" and features.labels[-1] == "label 39"
    assert features.clip_ids[0] == str(tmp_path / "good2.wav")
    assert all(f.shape[1] == 16 and f.dtype == np.float32 for row in features.features for f in row)


def test_extract_features_too_many_errors_raise(tmp_path: Path, processor: AudioProcessor) -> None:
    rows = load_rows(forty_rows(tmp_path, "text.wav", "empty.wav", "nan.wav"), "train")
    with pytest.raises(DataError, match=r"3 of 40 clips cannot be used.*row 1: .*text.wav"):
        extract_features(processor, rows)


def test_extract_features_all_broken_raises(tmp_path: Path, processor: AudioProcessor) -> None:
    data = write_csv(tmp_path, "file_name,caption", "a.wav,a hum")
    (tmp_path / "a.wav").write_text("not audio")
    with pytest.raises(DataError, match="1 of 1 clips cannot be used"):
        extract_features(processor, load_rows(data, "train"))


@pytest.mark.slow
def test_extract_features_workers_match(
    processor: AudioProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.preprocessing.parallel.MIN_ROWS_FOR_WORKERS", 64)
    rows = load_rows("mini", "test").select(range(64))
    alone, together = (
        extract_features(processor, rows),
        extract_features(processor, rows, num_workers=2),
    )
    assert len(alone) == 64 and alone.captions == together.captions
    for one, other in zip(alone.features, together.features, strict=True):
        assert len(one) == len(other) > 0
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_short_name_takes_precedence_over_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mini").mkdir()
    monkeypatch.chdir(tmp_path)
    rows, description = load_eval_dataset(DataArguments(dataset="mini"))
    assert rows is not None and "test split" in description
    trained = load_train_dataset(DataArguments(dataset="mini"))
    seeds = [set(part.with_format(None)["seed"]) for part in (rows, trained)]
    assert all(seeds) and not seeds[0] & seeds[1]
