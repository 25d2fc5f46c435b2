"""Common parts of the commands: the parser, and checks before any model is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from soundfile import write

from align.audio.files import AudioError
from align.cli import (
    CommandParser,
    argument_group,
    check_audio,
    check_extra,
    check_output_dir,
    check_output_file,
    quiet_libraries,
)
from tests.conftest import RATE, tone
from tests.helpers.doors import assert_refused


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    ("line", "expected"),
    [
        ("align.encode RUN absent.wav --output_file a.safetensors", "absent.wav' does not exist"),
        ("align.encode RUN good.wav text.wav --output_file a.safetensors", "text.wav"),
        (
            "align.encode RUN good.wav --output_file occupied/a.safetensors",
            "--output_file occupied is a file",
        ),
        ("align.encode RUN good.wav --output_file folder.safetensors", "is a folder"),
        ("align.evaluate RUN --json occupied/a.json", "--json occupied is a file"),
        ("align.evaluate RUN --sample_sheet occupied/a.png", "--sample_sheet occupied is a file"),
        ("diffuse.generate absent.wav --output_dir a", "absent.wav' does not exist"),
        ("diffuse.generate good.wav empty.wav --output_dir a", "empty.wav' is empty"),
        ("diffuse.generate good.wav --output_dir occupied", "--output_dir occupied is a file"),
        ("diffuse.generate good.wav --output_dir occupied/deep/er", "occupied, which is a file"),
        (
            "diffuse.generate good.wav --output_dir a --adapter absent",
            "'absent'",
        ),
        ("diffuse.generate good.wav --output_dir a --adapter_weights 1", "--adapter_weights"),
        ("diffuse.generate good.wav --output_dir a --scheduler best", "no scheduler 'best'"),
        ("diffuse.generate good.wav --output_dir a --relation friendly", "friendly"),
        (
            "diffuse.generate good.wav --output_dir a --num_inference_steps 0",
            "num_inference_steps",
        ),
        ("diffuse.generate good.wav --output_dir a --seed -1", "seed"),
        ("diffuse.generate good.wav --output_dir a --num_images 0", "num_images"),
        ("diffuse.generate good.wav --output_dir a --height 7", "height"),
        (
            "diffuse.generate good.wav --output_dir a --audio_interval 0 0.5",
            "audio_interval",
        ),
        ("diffuse.generate good.wav --output_dir a --audio_levels foreground", "an adapter"),
        ("diffuse.generate good.wav --output_dir a --audio_weights 1 2", "2 weights"),
        ("diffuse.edit absent.png good.wav --output_dir a", "absent.png'"),
        ("diffuse.edit photo.png text.wav --output_dir a", "text.wav"),
        ("diffuse.edit photo.png good.wav --output_dir occupied/a/b", "occupied, which is a file"),
        ("diffuse.animate absent.wav --output_file a.mp4", "absent.wav' does not exist"),
        ("diffuse.animate good.wav --output_file a.avi", "not 'a.avi'"),
        ("diffuse.animate good.wav --output_file folder.mp4", "is a folder"),
        ("diffuse.animate good.wav --output_file a.mp4 --fps 0", "fps"),
    ],
)
def test_invalid_command_line_is_refused_before_loading(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    assert_refused(line, expected, folder, monkeypatch)


def test_valid_paths_pass(folder: Path) -> None:
    check_audio([folder / "good.wav", str(folder / "good.wav"), (RATE, tone(200))])
    check_audio([])
    check_output_file(folder / "new" / "folder" / "a.json")
    check_output_file(Path("a.json"))
    check_output_dir(folder)
    check_output_dir(Path("new/folder"))
    assert not (folder / "new").exists()
    with pytest.raises(AudioError, match="does not exist"):
        check_audio([folder / "good.wav", folder / "absent.wav"])


def test_read_only_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != folder
    )  # root may write anywhere
    with pytest.raises(ValueError, match=r"--json .* is inside .* not writable"):
        check_output_file(folder / "new" / "a.json", "--json")


def command_parser() -> CommandParser:
    parser = CommandParser("python -m command", ("python -m command --seed 1",))
    output = argument_group(parser, "output")
    output.add_argument("--output_dir", required=True, help="Output directory.")
    output.add_argument("--seed", type=int, default=0, help="Seed.")
    assert argument_group(parser, "output") is output
    return parser


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--output_dri a", "there is no option '--output_dri'; did you mean --output_dir?"),
        ("--out a", "there is no option '--out'; did you mean --output_dir?"),
        ("--output_dir a --sed=3", "there is no option '--sed=3'; did you mean --seed?"),
        ("--output_dir a --nothing", "there is no option '--nothing'\n"),
        ("--seed 3", "the following arguments are required: --output_dir"),
    ],
)
def test_parser_suggests_the_nearest_option(
    capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        command_parser().parse_args(line.split())
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err


def test_parser_accepts_negative_numbers_and_words_with_spaces() -> None:
    options = command_parser().parse_args(["--output_dir", "--a b", "--seed", "-1"])
    assert (options.output_dir, options.seed) == ("--a b", -1)


def test_parser_help_has_groups_defaults_and_examples() -> None:
    text = command_parser().format_help()
    assert "\noutput:\n" in text and "Seed. (default: 0)" in text
    assert text.endswith("examples:\n  python -m command --seed 1\n")


def test_quiet_libraries_hides_the_torchvision_notice_only() -> None:
    import logging

    quiet_libraries()
    logger = logging.getLogger("transformers.utils.import_utils")
    records = [
        logging.LogRecord(logger.name, logging.WARNING, "", 0, text, (), None)
        for text in ("`CLIPImageProcessor` requires torchvision (not installed)", "another warning")
    ]
    assert [bool(logger.filter(record)) for record in records] == [False, True]


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_extra("align.train", "train", "json")
    monkeypatch.setattr("align.cli.find_spec", lambda name: None)
    with pytest.raises(
        SystemExit, match=r'datasets not installed: pip install "soundprompt\[train\]"'
    ):
        check_extra("align.train", "train", "datasets")
