"""Validation and --help of the diffuse commands."""

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
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "good.wav", tone(440), RATE)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "occupied").write_text("a file instead of a folder")
    (tmp_path / "folder.png").mkdir()
    parts: dict[str, dict[str, str]] = {"model": {}, "data": {}, "loss": {}, "training": {}}
    runs = {"run": parts, "aligned": {"options": {}, "captions": {}}, "list": [*parts]}
    for name, record in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"model": {')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("diffuse.evaluate run --json run", "--json run is a folder"),
        ("diffuse.evaluate run --json occupied/x.json", "--json occupied is a file"),
        (
            "diffuse.evaluate run --sample_sheet s.xyz",
            "--sample_sheet must be a .png file, not s.xyz",
        ),
        ("diffuse.evaluate run --sample_sheet folder.png", "is a folder"),
        (
            "diffuse.evaluate run --sample_sheet s.png --num_sheet_samples 0",
            "--sample_sheet needs --num_sheet_samples of at least 1",
        ),
        (
            "diffuse.evaluate run --guidance_scale nan",
            "--guidance_scale is 0 or more, not nan",
        ),
        (
            "diffuse.evaluate run --num_inference_steps 0",
            "1, not 0",
        ),
        ("diffuse.evaluate run --num_workers -1", "1, not -1"),
        ("diffuse.evaluate run --num_images -1", "--num_images"),
        ("diffuse.evaluate run --num_captions -1", "--num_captions"),
        ("diffuse.evaluate run --device gpu", "no device 'gpu'"),
        ("diffuse.evaluate run", "adapter in 'run'"),
        ("diffuse.evaluate aligned", "'aligned' is no"),
        ("diffuse.evaluate list", "'list' is no"),
        ("diffuse.evaluate torn", "is not JSON"),
        (
            "diffuse.generate good.wav --output_dir a --audio_weights nan",
            "not all 0, not [nan]",
        ),
        (
            "diffuse.generate good.wav --output_dir a --audio_weights inf",
            "not all 0, not [inf]",
        ),
        (
            "diffuse.generate good.wav --output_dir a --adapter b --adapter_weights nan",
            "must be finite",
        ),
        (
            "diffuse.generate good.wav --output_dir a --relation creative",
            "requires a prompt: give a --prompt",
        ),
        (
            "diffuse.generate good.wav --output_dir a --scheduler pndm --num_inference_steps 3",
            "at least 4 steps, not 3",
        ),
        ("diffuse.edit photo.png good.wav --output_dir a --relation creative", "requires a prompt"),
        ("diffuse.animate good.wav --output_file a.mp4 --relation creative", "requires a prompt"),
        ("diffuse.animate good.wav --output_file a.mp4 --fps inf", "must be positive"),
    ],
)
def test_invalid_options_are_reported_before_models_are_loaded(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    assert_refused(line, message, workdir, monkeypatch)


def test_load_run_record(workdir: Path) -> None:
    assert set(load_run_record(workdir / "run")) == {"model", "data", "loss", "training"}
    with pytest.raises(ValueError, match="is no"):
        load_run_record(workdir)


def test_relation_requires_a_prompt_or_none(workdir: Path) -> None:
    for flags in (["--relation", "none"], ["--relation", "creative", "--prompt", "rain"]):
        options = generate._arguments(["good.wav", "--output_dir", "a", *flags])
        generate.check_generation_options(options, options.audio)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_options_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="--guidance_scale is 0 or more"):
        EvaluationArguments(guidance_scale=value)
    with pytest.raises(ValueError, match="must be positive"):
        check_frame_rate(4.0, value)
    if value > 0 or value != value:
        with pytest.raises(ValueError, match="--noise_offset"):
            LossArguments(noise_offset=value)
    with pytest.raises(ValueError, match=r"--num_workers .* 1, not 0"):
        DataArguments(num_workers=0)
    assert EvaluationArguments().num_images == 100


@pytest.mark.parametrize(
    ("module", "with_default", "without"),
    [
        (
            "diffuse.generate",
            ["denoising steps. (default: 20)", "(default: 0.0 1.0)", "examples:"],
            "Image height in pixels.",
        ),
        ("diffuse.edit", ["(img2img). (default: inversion)", "examples:"], "Negative prompt."),
        ("diffuse.animate", ["Frames per second. (default: 4.0)", "examples:"], "Negative prompt."),
        ("diffuse.evaluate", ["accuracy. (default: mini)", "(default: auto)"], "to evaluate on."),
    ],
)
def test_help_shows_defaults(
    capsys: pytest.CaptureFixture[str], module: str, with_default: list[str], without: str
) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(module)._arguments(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(each in text for each in with_default)
    assert without in text and f"{without} (default" not in text
    assert "None" not in text and "False" not in text
