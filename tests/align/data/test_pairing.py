"""What the captioner takes for a pair, and how it reads what it wrote when others saved it."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.data.captioning import COLUMNS, Pair, caption_folder, find_pairs
from align.data.errors import DataError
from align.data.tables import CAPTIONS


def files(folder: Path, *names: str) -> Path:
    """Empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_picture_beside_a_recording_goes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files(tmp_path, "a/x.wav", "a/x.png", "b/x.wav", "b/x.png", "c/y.wav", "pictures/y.jpg")
    assert find_pairs(tmp_path) == [
        Pair("a/x.wav", "a/x.png"), Pair("b/x.wav", "b/x.png"), Pair("c/y.wav", "pictures/y.jpg"),
    ]  # fmt: skip
    assert "left out" not in capsys.readouterr().out


def test_a_recording_whose_picture_may_be_any_gets_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files(tmp_path, "a/x.png", "b/x.png", "c/x.wav", "d/x.wav", "y.wav", "y.png", "z.wav")
    assert find_pairs(tmp_path) == [Pair("y.wav", "y.png")]
    said = capsys.readouterr().out
    assert "left out: 2 recordings have no picture beside them and several of their name" in said
    assert "the first: c/x.wav" in said


def test_a_picture_of_another_recording_is_not_borrowed(tmp_path: Path) -> None:
    files(tmp_path, "a/1.wav", "a/1.png", "b/1.wav", "c/2.wav", "pictures/2.png", "d/2.png")
    (tmp_path / "d" / "2.wav").touch()
    assert find_pairs(tmp_path) == [
        Pair("a/1.wav", "a/1.png"), Pair("c/2.wav", "pictures/2.png"), Pair("d/2.wav", "d/2.png"),
    ]  # fmt: skip


def captioned(folder: Path, encoding: str) -> Path:
    """A pair with a caption, in captions.csv as some program saved it."""
    files(folder, "s0.wav", "s0.png")
    lines = ",".join(COLUMNS) + "\r\ns0.wav,s0.png,rain on a café,blip\r\n"
    (folder / CAPTIONS).write_bytes(lines.encode(encoding))
    return folder


def test_captions_that_excel_saved_are_known(tmp_path: Path) -> None:
    folder = captioned(tmp_path, "utf-8-sig")
    before = (folder / CAPTIONS).read_bytes()
    assert caption_folder(folder, "no captioner is needed") == 0
    assert (folder / CAPTIONS).read_bytes() == before


def test_captions_in_another_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"captions\.csv is not text in UTF-8 .*save it as UTF-8"):
        caption_folder(captioned(tmp_path, "latin-1"), "no captioner is needed")
