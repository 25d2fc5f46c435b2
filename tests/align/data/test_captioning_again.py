"""The captioner called again: what counts as captioned, and what as unreadable."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from align.data.captioning import caption_folder
from align.data.errors import DataError
from align.data.tables import CAPTIONS


def written(folder: Path, pairs: int, captions: dict[int, str]) -> Path:
    """Pairs in a table, their pictures not there, some of them captioned."""
    folder.mkdir()
    lines = [f"s{i}.wav,s{i}.png" for i in range(pairs)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,image", *lines]) + "\n")
    lines = [f"s{i}.wav,s{i}.png,{text},blip" for i, text in captions.items()]
    (folder / CAPTIONS).write_text("\n".join(["file_name,image,caption,captioner", *lines]) + "\n")
    return folder


def test_unreadable_pictures_are_a_share_of_all(tmp_path: Path) -> None:
    few = written(tmp_path / "few", 41, dict.fromkeys(range(39), "rain"))
    many = written(tmp_path / "many", 41, dict.fromkeys(range(38), "rain"))
    whole = written(tmp_path / "whole", 1, {})
    for _ in range(2):  # in the next run, too
        assert caption_folder(few, "no captioner is needed") == 0
        with pytest.raises(DataError, match="3 of 41 pictures cannot be used"):
            caption_folder(many, "no captioner is needed")
        with pytest.raises(DataError, match="1 of 1 pictures cannot be used"):
            caption_folder(whole, "no captioner is needed")


def test_a_caption_that_somebody_deleted_is_not_made_again(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", 2, {0: "rain", 1: ""})
    Image.new("RGB", (8, 8)).save(folder / "s1.png")
    before = (folder / CAPTIONS).read_text()
    assert caption_folder(folder, "no captioner is needed") == 0
    assert (folder / CAPTIONS).read_text() == before
