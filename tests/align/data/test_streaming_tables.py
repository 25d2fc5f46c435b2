"""Streamed parquet files of a local folder: audio paths, folds and empty cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import soundfile
from datasets import Dataset

from align.data.errors import DataError
from align.data.loading import load_rows
from align.data.streaming import load_stream
from tests.conftest import RATE, tone


@pytest.fixture(autouse=True)
def no_shutdown_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the five seconds that `datasets` waits for its threads after every iteration."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.01, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Three clips listed in a parquet file, the last without a fold."""
    (tmp_path / "sounds").mkdir()
    for i in range(3):
        soundfile.write(tmp_path / "sounds" / f"{i}.wav", tone(200 + 90 * i, 0.2), RATE)
    columns: dict[str, Any] = {
        "audio": [f"sounds/{i}.wav" for i in range(3)],
        "caption": ["a hum", "a buzz", "rain"],
        "label": [7.0, 8.0, None],
        "fold": [1.0, 2.0, None],
    }
    (tmp_path / "data").mkdir()
    Dataset.from_dict(columns).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    return str(tmp_path)


def test_stream_paths_are_relative_to_folder(folder: str) -> None:
    found = {caption: path for path, caption, _ in load_stream(folder, "train").iterate(0, 0)}
    rows = load_rows(folder, "train")
    assert found == dict(zip(rows["caption"], rows["audio"], strict=True))
    assert len(found) == 3 and all(Path(path).is_file() for path in found.values())


def test_stream_folds_and_labels_with_empty_cell(folder: str) -> None:
    stream, rows = load_stream(folder, "train"), load_rows(folder, "train")
    assert stream.labels == list(rows["label"]) == ["7", "8", "rain"]
    stream, rows = (load(folder, "train", folds=[2]) for load in (load_stream, load_rows))
    assert stream.captions == list(rows["caption"]) == ["a buzz"]
    assert [caption for _, caption, _ in stream.iterate(0, 0)] == ["a buzz"]


def test_missing_fold_raises(folder: str) -> None:
    for load in (load_stream, load_rows):
        with pytest.raises(DataError, match=r"has no fold 9; it has \['1', '2'\]"):
            load(folder, "train", folds=[1, 9])
