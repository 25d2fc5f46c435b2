"""Parquet files of audio datasets as on the Hub: bytes and a path, with the Audio feature."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from tests.conftest import RATE, tone

SOUND = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LABELS = ["dog", "sea_waves", "crying_baby"]


def sound(i: int, duration_s: float = 0.3) -> dict[str, Any]:
    """Return the i-th clip as a value of the audio column."""
    file = io.BytesIO()
    soundfile.write(file, tone(200 + 50 * i, duration_s), RATE, format="FLAC")
    return {"bytes": file.getvalue(), "path": f"{i}.flac"}


def write(folder: Path, split: str, columns: dict[str, Any], features: dict[str, Any]) -> None:
    """Write a split as one file, with the features in its schema as `datasets` does."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    arrays = {k: pa.array(v, SOUND if k == "audio" else None) for k, v in columns.items()}
    known = {"audio": {"sampling_rate": 44100, "_type": "Audio"}} | features
    table = pa.table(arrays).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": known}})}
    )
    pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")


def text(*names: str) -> dict[str, Any]:
    """Return the features of string columns."""
    return {name: {"dtype": "string", "_type": "Value"} for name in names}


def fsd50k(folder: Path, licenses: bool = True) -> str:
    """Write six training clips with several labels each, and two test clips."""
    labels = [
        "Bark,Dog,Domestic_animals_and_pets,Animal",
        "Rain,Water",
        "Electric_guitar,Guitar,Plucked_string_instrument,Musical_instrument,Music",
    ]
    for split, rows in (("train", 6), ("test", 2)):
        columns: dict[str, Any] = {
            "audio": [sound(i) for i in range(rows)],
            "labels": [labels[i % 3] for i in range(rows)],
            "title": [f"{i}.wav" for i in range(rows)],
            "split": ["train" if split == "train" else ""] * rows,
        }
        more: dict[str, Any] = text("labels", "title", "split")
        if licenses:
            stated = ["http://creativecommons.org/publicdomain/zero/1.0/",
                      "http://creativecommons.org/licenses/by/3.0/",
                      "http://creativecommons.org/licenses/by-nc/3.0/"]  # fmt: skip
            columns["license"] = [stated[i % 3] for i in range(rows)]
            more |= text("license")
        write(folder, split, columns, more)
    return str(folder)


def audiocaps(folder: Path) -> str:
    """Write four training clips, and two test clips with five captions each."""
    for split, clips, each in (("train", 4, 1), ("test", 2, 5)):
        rows = [(clip, k) for clip in range(clips) for k in range(each)]
        columns = {
            "youtube_id": [f"id{clip}" for clip, _ in rows],
            "start_time": [30 * clip for clip, _ in rows],
            "caption": [f"sound {clip} in words {k}" for clip, k in rows],
            "audio": [sound(clip) for clip, _ in rows],
        }
        kinds = text("youtube_id", "caption") | {"start_time": {"dtype": "int64", "_type": "Value"}}
        write(folder, split, columns, kinds)
    return str(folder)


def esc50(folder: Path) -> str:
    """Write nine clips of three classes in three folds, in one split."""
    columns = {
        "filename": [f"{i}.wav" for i in range(9)],
        "fold": [1 + i // 3 for i in range(9)],
        "category": [LABELS[i % 3] for i in range(9)],
        "audio": [sound(i) for i in range(9)],
    }
    kinds = text("filename", "category") | {"fold": {"dtype": "int64", "_type": "Value"}}
    write(folder, "train", columns, kinds)
    return str(folder)


def class_labels(folder: Path) -> str:
    """Write a dataset whose captions are class labels."""
    columns = {"audio": [sound(i) for i in range(4)], "kind": [0, 1, 2, 0]}
    write(folder, "train", columns, {"kind": {"names": LABELS, "_type": "ClassLabel"}})
    return str(folder)
