"""What the commands of a UNet that hears refuse at the door, and what their --help tells."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from PIL import Image
from soundfile import write

from diffuse import generate
from diffuse.config.arguments import DataArguments, EvaluationArguments, LossArguments
from diffuse.pipelines.animation import check_frame_rate
from diffuse.training.checkpoints import load_run_record
from tests.conftest import RATE, tone
from tests.helpers.doors import assert_refused


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "good.wav", tone(440), RATE)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "occupied").write_text("a file where a folder should be")
    (tmp_path / "folder.png").mkdir()
    parts: dict[str, dict[str, str]] = {"model": {}, "data": {}, "loss": {}, "training": {}}
    runs = {"run": parts, "aligned": {"options": {}, "captions": {}}, "list": [*parts]}
    for name, story in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(story))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"model": {')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("diffuse.evaluate run --json run", "--json run is a folder"),
        ("diffuse.evaluate run --json occupied/x.json", "--json occupied is a file"),
        (
            "diffuse.evaluate run --sample_sheet s.xyz",
            "--sample_sheet writes a PNG: name it so, not s.xyz",
        ),
        ("diffuse.evaluate run --sample_sheet folder.png", "is a folder"),
        (
            "diffuse.evaluate run --sample_sheet s.png --num_sheet_samples 0",
            "--sample_sheet draws --num_sheet_samples sounds",
        ),
        (
            "diffuse.evaluate run --guidance_scale nan",
            "--guidance_scale is a number from 0 on, not nan",
        ),
        (
            "diffuse.evaluate run --num_inference_steps 0",
            "--num_inference_steps is at least 1, not 0",
        ),
        ("diffuse.evaluate run --num_workers -1", "--num_workers is at least 1, not -1"),
        ("diffuse.evaluate run --num_images -1", "--num_images cannot be negative"),
        ("diffuse.evaluate run --num_captions -1", "--num_captions cannot be negative"),
        ("diffuse.evaluate run --device gpu", "no device 'gpu'"),
        ("diffuse.evaluate run", "no sound adapter in 'run'"),
        ("diffuse.evaluate aligned", "'aligned' is no run: give a folder that diffuse.train"),
        ("diffuse.evaluate list", "'list' is no run"),
        ("diffuse.evaluate torn", "is not JSON"),
        (
            "diffuse.generate good.wav --out a --audio_weights nan",
            "from 0 on, not all 0, and not [nan]",
        ),
        (
            "diffuse.generate good.wav --out a --audio_weights inf",
            "from 0 on, not all 0, and not [inf]",
        ),
        ("diffuse.generate good.wav --out a --adapter b --adapter_weights nan", "are numbers"),
        ("diffuse.generate good.wav --out a --relation creative", "of text and sound: give a"),
        (
            "diffuse.generate good.wav --out a --scheduler pndm --num_inference_steps 3",
            "at least 4 steps, not 3",
        ),
        ("diffuse.edit photo.png good.wav --out a --relation creative", "of text and sound"),
        ("diffuse.animate good.wav --out a.mp4 --relation creative", "of text and sound"),
        ("diffuse.animate good.wav --out a.mp4 --fps inf", "frames a second"),
    ],
)
def test_the_door_comes_before_the_models(
    desk: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    assert_refused(line, said, desk, monkeypatch)


def test_what_a_run_tells_is_read(desk: Path) -> None:
    assert set(load_run_record(desk / "run")) == {"model", "data", "loss", "training"}
    with pytest.raises(ValueError, match="is no run"):
        load_run_record(desk)


def test_a_relation_is_heard_beside_a_text_or_left_out(desk: Path) -> None:
    for words in (["--relation", "none"], ["--relation", "creative", "--prompt", "rain"]):
        options = generate._arguments(["good.wav", "--out", "a", *words])
        generate.check_generation_options(options, options.sounds)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_options_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="--guidance_scale is a number from 0 on"):
        EvaluationArguments(guidance_scale=value)
    with pytest.raises(ValueError, match="frames a second"):
        check_frame_rate(4.0, value)
    if value > 0 or value != value:
        with pytest.raises(ValueError, match="--noise_offset is a number, not"):
            LossArguments(noise_offset=value)
    with pytest.raises(ValueError, match="--num_workers is at least 1, not 0"):
        DataArguments(workers=0)
    assert EvaluationArguments().num_images == 100


@pytest.mark.parametrize(
    ("module", "told", "untold"),
    [
        ("diffuse.generate", ["denoising steps (default: 20)", "(default: 0.0 1.0)"], "in pixels"),
        ("diffuse.edit", ["see above (default: inversion)"], "what to guide away from"),
        ("diffuse.animate", ["frames a second (default: 4.0)"], "what to guide away from"),
        ("diffuse.evaluate", ["who judges (default: mini)", "(default: auto)"], "these only"),
        ("align.evaluate", ["pictures judged (0: none) (default: 100)"], "column of recordings"),
        ("align.encode", ["of the file (default: float32)", "(default: auto)"], "a .safetensors"),
    ],
)
def test_help_tells_the_defaults_there_are(
    capsys: pytest.CaptureFixture[str], module: str, told: list[str], untold: str
) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(module)._arguments(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(each in said for each in told)
    assert untold in said and f"{untold} (default" not in said
    assert "None" not in said and "False" not in said
