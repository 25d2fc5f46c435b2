"""Unusable datasets raise an error with a one-line message."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from align.config.arguments import DataArguments
from align.data.errors import DataError
from align.data.splits import load_eval_dataset, load_train_dataset
from tests.conftest import RATE, tone


def write_audio(folder: Path) -> None:
    """Write the two audio files that the tables list."""
    for name in ("a", "b"):
        soundfile.write(folder / f"{name}.wav", tone(440, 0.2), RATE)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"file_name,text\na.wav,a hum\nb.wav,a buzz\n", "no column caption; it has: file_name"),
        (b"", "is empty: it needs column names and at least two rows"),
        (b"file_name,caption\n", "is empty: it needs column names and at least two rows"),
        (b"file_name,caption\na.wav,\nb.wav,\n", "2 of 2 rows .* have no caption"),
        (b"file_name,caption\na.wav,a hum\nb.wav,a hum\n", "the caption 'a hum': training needs"),
        (
            b"file_name,caption,label\na.wav,a hum,x\nb.wav,a buzz,x\n",
            "label 'x', so all are positives",
        ),
        ("file_name,caption\na.wav,é\nb.wav,ü\n".encode("latin-1"), "save it as UTF-8"),
        (b"file_name,caption\nc.wav,a hum\nd.wav,a buzz\n", "none of the 2 files"),
        (b"a,b\n1,2,3,4\n5\n", "cannot be read as a table: .* more fields than the header"),
        (
            b"file_name,caption\na.wav,a hum, a buzz\n",
            "fields than .*: quote texts that contain commas",
        ),
        (b"\x00\x01\x02\xff" * 9, "cannot be read as a table|has no column"),
    ],
)
def test_invalid_table_raises(tmp_path: Path, table: bytes, message: str) -> None:
    write_audio(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(table)
    with pytest.raises(DataError, match=message) as caught:
        load_train_dataset(DataArguments(dataset=str(tmp_path)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_duplicate_rows_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_audio(tmp_path)
    rows = "a.wav,a hum\nb.wav,a buzz\na.wav,a hum\na.wav,a drone\n"
    (tmp_path / "metadata.csv").write_text("file_name,caption\n" + rows)
    kept = load_train_dataset(DataArguments(dataset=str(tmp_path)))
    assert kept["caption"] == ["a hum", "a buzz", "a drone"]
    assert "removed 1 duplicate rows" in capsys.readouterr().out


def test_missing_fold_raises(sound_folder: Path) -> None:
    for options in ({"folds": [7]}, {"folds": [1], "eval_folds": [7]}):
        with pytest.raises(DataError, match=r"has no fold 7; it has \['1', '2', '3'\]"):
            data = DataArguments(dataset=str(sound_folder), **options)
            load_eval_dataset(data) if "eval_folds" in options else load_train_dataset(data)


def test_missing_copy_raises() -> None:
    with pytest.raises(DataError, match="there is no folder"):
        load_train_dataset(DataArguments(dataset="fsd50k@/nowhere"))


def test_unreachable_hub_raises() -> None:
    with pytest.raises(DataError, match="there is no dataset 'nateraw/fsd50k'") as caught:
        load_train_dataset(DataArguments(dataset="fsd50k"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "random"}, "--order is shuffled or caption_length"),
        ({"caption_template": "a sound"}, "--caption_template"),
        ({"shuffle_buffer_size": 0}, "at least 1"),
        ({"shuffle_buffer_size": 9}, "is for --streaming true"),
        ({"streaming": True, "order": "caption_length"}, "a stream cannot be sorted"),
        ({"streaming": True, "extra_dataset": "mini"}, "one dataset"),
        ({"extra_dataset_fraction": 0.5}, "needs --extra_dataset, which is none"),
        ({"extra_dataset": "none", "extra_dataset_fraction": 0.5}, "which is none"),
        ({"extra_dataset": "mini", "extra_dataset_fraction": 1.0}, "from 0 to below 1"),
    ],
)
def test_contradicting_options_raise(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataArguments(**options)
