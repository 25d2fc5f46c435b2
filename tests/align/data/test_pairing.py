"""Pairs of audio files and images, and captions.csv saved by other programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.data.captioning import COLUMNS, Pair, caption_folder, find_pairs
from align.data.errors import DataError
from align.data.tables import CAPTIONS


def files(folder: Path, *names: str) -> Path:
    """Create empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_find_pairs_prefers_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files(tmp_path, "a/x.wav", "a/x.png", "b/x.wav", "b/x.png", "c/y.wav", "images/y.jpg")
    assert find_pairs(tmp_path) == [
        Pair("a/x.wav", "a/x.png"), Pair("b/x.wav", "b/x.png"), Pair("c/y.wav", "images/y.jpg"),
    ]  # fmt: skip
    assert "skipped" not in capsys.readouterr().out


def test_find_pairs_skips_ambiguous_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files(tmp_path, "a/x.png", "b/x.png", "c/x.wav", "d/x.wav", "y.wav", "y.png", "z.wav")
    assert find_pairs(tmp_path) == [Pair("y.wav", "y.png")]
    out = capsys.readouterr().out
    assert "skipped: 2 audio files have no image in the same folder and several candidates" in out
    assert "the first: c/x.wav" in out


def test_find_pairs_ignores_paired_images(tmp_path: Path) -> None:
    files(tmp_path, "a/1.wav", "a/1.png", "b/1.wav", "c/2.wav", "images/2.png", "d/2.png")
    (tmp_path / "d" / "2.wav").touch()
    assert find_pairs(tmp_path) == [
        Pair("a/1.wav", "a/1.png"), Pair("c/2.wav", "images/2.png"), Pair("d/2.wav", "d/2.png"),
    ]  # fmt: skip


def captioned(folder: Path, encoding: str) -> Path:
    """Create a pair with a caption in captions.csv with the given encoding."""
    files(folder, "s0.wav", "s0.png")
    lines = ",".join(COLUMNS) + "\r\ns0.wav,s0.png,rain on a café,blip\r\n"
    (folder / CAPTIONS).write_bytes(lines.encode(encoding))
    return folder


def test_caption_folder_reads_byte_order_mark(tmp_path: Path) -> None:
    folder = captioned(tmp_path, "utf-8-sig")
    before = (folder / CAPTIONS).read_bytes()
    assert caption_folder(folder, "no captioner is needed") == 0
    assert (folder / CAPTIONS).read_bytes() == before


def test_caption_folder_other_encoding_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"captions\.csv is not UTF-8 text .*save it as UTF-8"):
        caption_folder(captioned(tmp_path, "latin-1"), "no captioner is needed")
