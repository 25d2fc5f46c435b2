"""Repeated captioning: which rows count as captioned, and which images as unreadable."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from align.data.captioning import caption_folder
from align.data.errors import DataError
from align.data.tables import CAPTIONS


def write_table(folder: Path, pairs: int, captions: dict[int, str]) -> Path:
    """Write a table of pairs with missing images, some of them captioned."""
    folder.mkdir()
    lines = [f"s{i}.wav,s{i}.png" for i in range(pairs)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,image", *lines]) + "\n")
    lines = [f"s{i}.wav,s{i}.png,{text},blip" for i, text in captions.items()]
    (folder / CAPTIONS).write_text("\n".join(["file_name,image,caption,captioner", *lines]) + "\n")
    return folder


def test_error_rate_counts_all_pairs(tmp_path: Path) -> None:
    few = write_table(tmp_path / "few", 41, dict.fromkeys(range(39), "rain"))
    many = write_table(tmp_path / "many", 41, dict.fromkeys(range(38), "rain"))
    whole = write_table(tmp_path / "whole", 1, {})
    for _ in range(2):  # the second call must fail as well
        assert caption_folder(few, "no captioner is needed") == 0
        with pytest.raises(DataError, match="3 of 41 images cannot be used"):
            caption_folder(many, "no captioner is needed")
        with pytest.raises(DataError, match="1 of 1 images cannot be used"):
            caption_folder(whole, "no captioner is needed")


def test_deleted_caption_is_not_regenerated(tmp_path: Path) -> None:
    folder = write_table(tmp_path / "p", 2, {0: "rain", 1: ""})
    Image.new("RGB", (8, 8)).save(folder / "s1.png")
    before = (folder / CAPTIONS).read_text()
    assert caption_folder(folder, "no captioner is needed") == 0
    assert (folder / CAPTIONS).read_text() == before
