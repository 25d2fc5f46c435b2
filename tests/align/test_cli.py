"""What commands refuse before any model is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from soundfile import write

from align.audio.files import AudioError
from align.cli import check_audio, check_output_dir, check_output_file
from tests.conftest import RATE, tone
from tests.helpers.doors import assert_refused


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "good.wav", tone(440), RATE)
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "occupied").write_text("a file where a folder should be")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("align.encode RUN absent.wav --out a.safetensors", "absent.wav' does not exist"),
        ("align.encode RUN good.wav text.wav --out a.safetensors", "text.wav"),
        ("align.encode RUN good.wav --out occupied/a.safetensors", "--out occupied is a file"),
        ("align.encode RUN good.wav --out folder.safetensors", "is a folder"),
        ("align.evaluate RUN --json occupied/a.json", "--json occupied is a file"),
        ("align.evaluate RUN --sample_sheet occupied/a.png", "--sample_sheet occupied is a file"),
        ("diffuse.generate absent.wav --out a", "absent.wav' does not exist"),
        ("diffuse.generate good.wav empty.wav --out a", "empty.wav' is empty"),
        ("diffuse.generate good.wav --out occupied", "--out occupied is a file"),
        ("diffuse.generate good.wav --out occupied/deep/er", "occupied, which is a file"),
        ("diffuse.generate good.wav --out a --adapter absent", "no sound adapter in 'absent'"),
        ("diffuse.generate good.wav --out a --adapter_weights 1", "0 adapters and 1"),
        ("diffuse.generate good.wav --out a --scheduler best", "no scheduler 'best'"),
        ("diffuse.generate good.wav --out a --relation friendly", "friendly"),
        (
            "diffuse.generate good.wav --out a --num_inference_steps 0",
            "num_inference_steps is at least 1",
        ),
        ("diffuse.generate good.wav --out a --seed -1", "seed is a whole number from 0"),
        ("diffuse.generate good.wav --out a --num_images 0", "num_images is at least 1"),
        ("diffuse.generate good.wav --out a --height 7", "height is a multiple of 8"),
        (
            "diffuse.generate good.wav --out a --audio_interval 0 0.5",
            "audio_interval needs an adapter",
        ),
        ("diffuse.generate good.wav --out a --audio_levels foreground", "need an adapter"),
        ("diffuse.generate good.wav --out a --audio_weights 1 2", "1 sounds and 2 weights"),
        ("diffuse.edit absent.png good.wav --out a", "absent.png' is no picture"),
        ("diffuse.edit photo.png text.wav --out a", "text.wav"),
        ("diffuse.edit photo.png good.wav --out occupied/a/b", "occupied, which is a file"),
        ("diffuse.animate absent.wav --out a.mp4", "absent.wav' does not exist"),
        ("diffuse.animate good.wav --out a.avi", "not 'a.avi'"),
        ("diffuse.animate good.wav --out folder.mp4", "is a folder"),
        ("diffuse.animate good.wav --out a.mp4 --fps 0", "frames a second"),
    ],
)
def test_the_door_comes_before_the_models(
    desk: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    assert_refused(line, said, desk, monkeypatch)


def test_what_is_right_passes(desk: Path) -> None:
    check_audio([desk / "good.wav", str(desk / "good.wav"), (RATE, tone(200))])
    check_audio([])
    check_output_file(desk / "new" / "folder" / "a.json")
    check_output_file(Path("a.json"))
    check_output_dir(desk)
    check_output_dir(Path("new/folder"))
    assert not (desk / "new").exists()
    with pytest.raises(AudioError, match="does not exist"):
        check_audio([desk / "good.wav", desk / "absent.wav"])


def test_a_folder_that_may_not_be_written_in_is_refused(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != desk)  # root may always
    with pytest.raises(ValueError, match=r"--json would lie in .*may not be written in"):
        check_output_file(desk / "new" / "a.json", "--json")
