"""Pairs of a folder: matching names in several folders, and tables with empty cells."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from PIL import Image

from align.data.errors import DataError
from diffuse.data.pairs import AudioImagePairs, load_pairs
from diffuse.data.sources import AMBIGUOUS_IMAGE, AMBIGUOUS_TEXT, UNPAIRED_AUDIO, UNPAIRED_IMAGE
from diffuse.data.vggsound import DUPLICATE
from tests.conftest import RATE, tone


def files(folder: Path, *names: str) -> Path:
    """Write audio files, images, and texts that contain their own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".wav":
            soundfile.write(path, tone(300, 0.2), RATE)
        elif path.suffix == ".png":
            Image.new("RGB", (8, 8)).save(path)
        else:
            path.write_text(name)
    return folder


def found(folder: Path, pairs: AudioImagePairs) -> list[tuple[str, ...]]:
    return [
        tuple(str(Path(row[name]).relative_to(folder)) for name in ("audio", "image"))
        for row in pairs.rows
    ]


def test_pairing_prefers_the_same_folder(tmp_path: Path) -> None:
    files(tmp_path, "a/1.wav", "a/1.png", "a/1.txt", "b/1.wav", "b/1.png", "b/1.txt", "b/2.wav",
          "images/2.png", "images/2.txt")  # fmt: skip
    pairs = load_pairs(str(tmp_path), "train")
    assert found(tmp_path, pairs) == [
        ("a/1.wav", "a/1.png"), ("b/1.wav", "b/1.png"), ("b/2.wav", "images/2.png"),
    ]  # fmt: skip
    assert pairs.captions == [["a/1.txt"], ["b/1.txt"], ["images/2.txt"]]
    assert pairs.labels == ["a", "b", "b"] and not pairs.skipped


def test_pairing_ignores_files_in_other_folders(tmp_path: Path) -> None:
    files(tmp_path, "a/1.wav", "a/1.png", "a/1.txt", "b/1.wav", "b/1.png", "c/1.wav")
    pairs = load_pairs(str(tmp_path), "train")
    assert found(tmp_path, pairs) == [("a/1.wav", "a/1.png"), ("b/1.wav", "b/1.png")]
    assert pairs.captions == [["a/1.txt"], [""]]
    assert pairs.skipped == {UNPAIRED_AUDIO: ["c/1.wav"]}


def test_pairing_skips_ambiguous_files(tmp_path: Path) -> None:
    files(tmp_path, "a/1.png", "b/1.png", "c/1.wav", "d/2.wav", "e/2.wav", "images/2.png",
          "t/2.txt", "u/2.txt")  # fmt: skip
    pairs = load_pairs(str(tmp_path), "train")
    assert found(tmp_path, pairs) == [("d/2.wav", "images/2.png")]
    assert pairs.captions == [[""]]
    assert pairs.skipped == {
        AMBIGUOUS_IMAGE: ["c/1.wav"],
        DUPLICATE: ["e/2.wav (duplicate of d/2.wav)"],
        UNPAIRED_IMAGE: ["a/1.png", "b/1.png"],
        AMBIGUOUS_TEXT: ["d/2.wav"],
    }


def test_table_with_empty_cells_and_trailing_comma(tmp_path: Path) -> None:
    files(tmp_path, "1.wav", "1.png", "2.wav", "2.png")
    lines = ("file_name,image,caption,fold,label", "1.wav,1.png,None,1,7,", "2.wav,2.png,sea,,,")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    pairs = load_pairs(str(tmp_path), "train")
    assert pairs.captions == [["None"], ["sea"]] and pairs.labels == ["7", "sea"]
    assert load_pairs(str(tmp_path), "train", folds=[1]).labels == ["7"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_generated_captions_encoding(tmp_path: Path, encoding: str) -> None:
    files(tmp_path, "1.wav", "1.png")
    text = "file_name,image,caption,captioner\n1.wav,1.png,a café,blip\n"
    (tmp_path / "captions.csv").write_bytes(text.encode(encoding))
    if encoding == "utf-8-sig":
        assert load_pairs(str(tmp_path), "train").captions == [["a café"]]
        return
    with pytest.raises(DataError, match=r"captions\.csv is not UTF-8 text"):
        load_pairs(str(tmp_path), "train")
