"""The app without a server: limits, models, jobs and messages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from align.audio.files import AudioError
from soundprompt.app import messages
from soundprompt.app.arguments import AppArguments
from soundprompt.app.audio_input import plot_audio, read_upload, spectrogram
from soundprompt.app.bootstrap import PROGRESS_BAR, MiniEncoderTraining
from soundprompt.app.jobs import JobResult, RunningJobs, StepUpdate, run_job
from soundprompt.app.models import (
    ModelChoice,
    ModelError,
    PipelineCache,
    base_model_of,
    find_models,
    model_kind,
    resolve_model,
)
from soundprompt.app.validation import InvalidRequestError, validate_request
from tests.conftest import RATE, tone
from tests.helpers.launches import SHORT
from tests.helpers.pages import free_port, serves_and_ends

ROOT = Path(__file__).parents[3]


@pytest.fixture()
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "a user's tone.wav"
    soundfile.write(path, tone(440), RATE)
    return path


@pytest.fixture()
def folders(tmp_path: Path) -> AppArguments:
    """A models folder with one model of each kind, and a run."""
    for name, file, content in (
        ("models/sd", "model_index.json", {}),
        ("models/sd/unet", "config.json", {"model_type": "audio_prompt"}),
        ("models/deep/er/encoder", "config.json", {"model_type": "audio_prompt"}),
        ("models/gates", "config.json", {"library": "soundprompt-adapter"}),
        ("models/broken", "config.json", None),
        ("models/other", "config.json", {"model_type": "clap"}),
        ("runs/align/mine", "config.json", {"model_type": "audio_prompt"}),
        ("runs/align/mine/checkpoint-10", "config.json", {"model_type": "audio_prompt"}),
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{" if content is None else json.dumps(content))
    config = {"model_type": "audio_prompt", "default_space": str(tmp_path / "models/sd")}
    (tmp_path / "models/deep/er/encoder/config.json").write_text(json.dumps(config))
    return AppArguments(models_dir=str(tmp_path / "models"), runs_dir=str(tmp_path / "runs"))


def test_upload_is_read_completely_and_plotted(wav: Path):
    audio = read_upload(str(wav), AppArguments())
    assert audio.duration_s == 2.0 and audio.decode_warnings == ""
    assert np.array_equal(audio.waveform, soundfile.read(wav, dtype="float32")[0])
    levels = spectrogram(audio)
    loudest = levels.mean(1).argmax()
    hertz = 700 * (10 ** (loudest / 96 * np.log10(1 + 12_000 / 700)) - 1)
    assert 330 < hertz < 570  # the band of the tone's 440 Hz
    first, again = plot_audio(audio), plot_audio(audio)
    assert first.size == (900, 287) and np.array_equal(np.asarray(first), np.asarray(again))
    other = plot_audio(read_upload(str(_other(wav)), AppArguments()))
    assert not np.array_equal(np.asarray(first), np.asarray(other))


def _other(wav: Path) -> Path:
    path = wav.with_name("other.wav")
    soundfile.write(path, tone(2000), RATE)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"I am a text and no sound.\n" * 20, "not a readable audio file"),
        (None, "does not exist"),
    ],
)
def test_read_upload_invalid_file_raises_without_path(
    tmp_path: Path, content: bytes | None, reason: str
):
    path = tmp_path / "secret place.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_upload(str(path), AppArguments())
    message = str(caught.value)
    assert reason in message and message.startswith("The audio")
    assert str(tmp_path) not in message and "secret" not in message


def test_read_upload_missing_long_or_large_audio_raises(wav: Path):
    with pytest.raises(AudioError, match="There is no audio"):
        read_upload(None, AppArguments())
    with pytest.raises(AudioError, match=r"longer than 1\.5 s"):
        read_upload(str(wav), AppArguments(max_audio_s=1.5))
    assert read_upload(str(wav), AppArguments(max_audio_s=2.0)).duration_s == 2.0
    with pytest.raises(AudioError, match=r"0\.1 MB, more than the limit of 0\.05 MB"):
        read_upload(str(wav), AppArguments(max_upload_mb=0.05))


def test_read_upload_truncated_file_warns(wav: Path):
    half = wav.with_name("half.wav")
    half.write_bytes(wav.read_bytes()[:50_000])
    audio = read_upload(str(half), AppArguments())
    assert 0.5 < audio.duration_s < 1.5
    assert audio.decode_warnings.startswith("The audio is truncated")
    assert "half" not in audio.decode_warnings


def test_validate_request_defaults():
    options = AppArguments(max_prompt_length=10)
    request = validate_request({}, options)
    assert (request.num_inference_steps, request.seed) == (20, 0)
    assert (request.num_images, request.audio_scale) == (1, 1.0)
    assert request.models == ModelChoice("mini", "mini", "none")
    assert request.pipeline_kwargs["prompt"] is None
    assert validate_request({"prompt": "  at \n night "}, options).prompt == "at night"
    assert validate_request({"adapter": "", "base_model": " x "}, options).models == ModelChoice(
        "x", "mini", "none"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "x" * 11), ("negative_prompt", "x" * 11), ("num_inference_steps", 0),
        ("num_inference_steps", 51), ("num_inference_steps", 2.5), ("num_inference_steps", "many"),
        ("seed", -1), ("seed", 2**32), ("num_images", 5),
        ("guidance_scale", float("nan")), ("guidance_scale", 0.5), ("audio_scale", 2.1),
        ("ambience", float("inf")), ("foreground", -0.1), ("relation", "friendly"),
    ],
)  # fmt: skip
def test_validate_request_out_of_range_names_the_field(field: str, value: object):
    with pytest.raises(InvalidRequestError) as caught:
        validate_request({field: value}, AppArguments(max_prompt_length=10))
    titles = {"num_inference_steps": "number of steps", "num_images": "number of images"}
    assert titles.get(field, field).replace("_", " ") in str(caught.value)


def test_level_scales_require_an_adapter():
    with pytest.raises(InvalidRequestError, match="require an adapter"):
        validate_request({"background": 0.5}, AppArguments())
    assert validate_request({}, AppArguments()).pipeline_kwargs["level_scales"] is None
    request = validate_request({"background": 0.5, "adapter": "x"}, AppArguments())
    assert request.pipeline_kwargs["level_scales"] == {
        "foreground": 1,
        "background": 0.5,
        "ambience": 1,
    }


def test_find_models_by_their_files(folders: AppArguments):
    found = find_models(folders)
    models, runs = Path(folders.models_dir), Path(folders.runs_dir)
    assert list(found.base_model) == ["mini", str(models / "sd")]
    assert list(found.encoder) == [
        "mini",
        str(models / "deep/er/encoder"),
        str(runs / "align/mine"),
    ]
    assert list(found.adapter) == [str(models / "gates")]
    assert model_kind(models / "broken") is None and model_kind(models / "other") is None
    assert base_model_of(str(models / "deep/er/encoder"), found) == str(models / "sd")
    assert base_model_of("someone/encoder", found) is None


def test_resolve_model_accepts_names_and_hub_ids(folders: AppArguments):
    sd = str(Path(folders.models_dir) / "sd")
    assert resolve_model("base_model", f" {sd} ", folders) == sd
    assert resolve_model("base_model", "owner/name", folders) == "owner/name"
    for name in ("nonsense", "/etc", "../x/y", "docs/images", str(folders.models_dir), "a/b/c"):
        with pytest.raises(ModelError, match="There is no base model"):
            resolve_model("base_model", name, folders)
    folders.allow_hub = False
    with pytest.raises(ModelError, match=r"There is no encoder 'owner/name'\. Available"):
        resolve_model("encoder", "owner/name", folders)


class FakePipeline:
    """Records the names it is loaded from and the attached adapter."""

    def __init__(self, *names: object) -> None:
        self.names = names
        self.adapter: str | None = None

    def set_adapter(self, adapter: str | None) -> None:
        self.adapter = adapter


def test_pipeline_cache_evicts_least_recently_used(folders: AppArguments):
    loaded: list[FakePipeline] = []
    folders.max_loaded_models = 2
    cache = PipelineCache(folders, lambda *n: loaded.append(FakePipeline(*n)) or loaded[-1])
    one, other, third = (ModelChoice(f"x/{n}", encoder=f"x/{n}") for n in "abc")
    first = cache.get(one)
    assert cache.get(one) is first and len(loaded) == 1
    cache.get(other)
    assert cache.get(one) is first
    cache.get(third)  # evicts `other`
    assert cache.get(one) is first and len(cache) == 2 and len(loaded) == 3
    cache.get(other)
    assert loaded[-1].names == ("x/b", "x/b", None) and len(loaded) == 4


def test_encoders_and_adapters_share_a_base_model(folders: AppArguments):
    folders.max_loaded_models = 1
    cache = PipelineCache(folders, FakePipeline)
    gates = str(Path(folders.models_dir) / "gates")
    first = cache.get(ModelChoice(encoder="x/a"))
    assert cache.get(ModelChoice(encoder="x/a", adapter=gates)) is first and first.adapter == gates
    assert cache.get(ModelChoice(encoder="x/a")) is first and first.adapter is None
    second = cache.get(ModelChoice(encoder="x/b"))
    assert second.names == ("mini", "x/b", first)
    with pytest.raises(ModelError, match=r"There is no adapter 'owner/name'\. Available"):
        cache.get(ModelChoice(encoder="x/b", adapter="owner/name"))


def _slowly(steps: int = 200):
    def work(report_step):
        for i in range(steps):
            if report_step(i + 1, steps):
                return i + 1
            time.sleep(0.01)
        return steps

    return work


def test_run_job_yields_every_step_and_the_result():
    updates = list(run_job(_slowly(5), threading.Event(), 60))
    assert updates == [*(StepUpdate(i, 5) for i in range(1, 6)), JobResult(5)]


def test_run_job_stops_on_request_at_the_limit_and_when_closed():
    jobs = RunningJobs()
    with jobs.register("mine") as mine, jobs.register("theirs") as theirs:
        updates = run_job(_slowly(), mine, 60)
        next(updates)
        assert jobs.stop("mine") and not theirs.is_set()
        assert list(updates)[-1].result < 200
    assert not jobs.stop("mine")
    assert list(run_job(_slowly(), threading.Event(), 0.1))[-1].timed_out
    closed = threading.Event()
    updates = run_job(_slowly(), closed, 60)
    next(updates)
    updates.close()
    assert closed.is_set()


def test_run_job_returns_the_error_of_a_failed_job():
    def fail(report_step):
        raise RuntimeError("no")

    (result,) = run_job(fail, threading.Event(), 60)
    assert isinstance(result.error, RuntimeError)


def test_messages_are_escaped():
    assert "<script>" not in messages.status("<script>", 1, 2, alert=True)
    assert "<b>" not in messages.notice("<b>")
    assert 'role="alert"' in messages.status("x", alert=True)
    assert 'value="3" max="20"' in messages.generation_progress(3, 20, 2)


def test_progress_bars_are_parsed():
    match = PROGRESS_BAR.match("train features:  17%|█▋        | 255/1500 [00:05<00:25, 48.0it/s]")
    assert match and match.groups() == ("train features", "255", "1500")
    match = PROGRESS_BAR.match("100%|██████████| 150/150 [02:18<00:00,  1.08it/s]")
    assert match and match.groups() == (None, "150", "150")


@pytest.mark.slow
def test_help_lists_options_and_invalid_values_raise():
    run = subprocess.run(
        [sys.executable, ROOT / "app.py", "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"--{name}" in run.stdout for name in vars(AppArguments()))
    with pytest.raises(ValueError, match="--max_inference_steps is 0"):
        AppArguments(max_inference_steps=0)


def test_app_guide_states_the_defaults():
    text = (ROOT / "docs/guides/app.md").read_text()
    rows = re.findall(r"^\| `--(\w+)` \| (\S+) \|", text, re.MULTILINE)
    assert len(rows) >= 6
    assert all(float(value) == getattr(AppArguments(), name) for name, value in rows)


@pytest.mark.slow
def test_command_serves_the_app_and_terminates_cleanly(tmp_path: Path):
    """The training of the mini encoder starts, and stops with the app."""
    port = free_port()
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    line = [sys.executable, ROOT / "app.py", "--runs_dir", tmp_path]
    serves_and_ends(line, port, cwd=tmp_path, env=environment)
    end = time.monotonic() + 30  # a terminated process needs time to exit on a busy machine
    while (left := [name for name in _processes() if str(tmp_path) in name]) and (
        time.monotonic() < end
    ):
        time.sleep(0.1)
    assert not left


def _processes() -> list[str]:
    """Command lines of all processes; empty where /proc does not exist."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


@pytest.mark.slow
def test_mini_encoder_trains_once_and_reports_progress(
    tmp_path: Path, tiny_base: str, tiny_clap: str, sound_folder: Path
):
    models = ("--base_model", tiny_base, "--backbone", tiny_clap, "--dataset", str(sound_folder))
    bars = [word for word in SHORT if word not in ("--disable_tqdm",)]
    bars.pop(bars.index("--use_cpu") - 1)  # the value of --disable_tqdm
    # Long enough to observe the progress on any machine.
    training = MiniEncoderTraining(tmp_path / "run", *models, *bars, "--num_train_epochs", "60")
    assert not training.ready
    training.start()
    process = training._process
    training.start()
    assert training._process is process  # only one training at a time
    seen, end = set(), time.monotonic() + 300
    while not training.ready and not training.failure and time.monotonic() < end:
        seen.add(training.progress)
        time.sleep(0.01)
    assert training.ready and len(seen) > 2 and max(seen) <= 1
    training.start()
    assert training._process is process

    wrong = MiniEncoderTraining(tmp_path / "other", "--base_model", "nowhere/at-all")
    wrong.start()
    while not wrong.failure:
        assert not wrong.ready and time.monotonic() < end
        time.sleep(0.05)
    assert "nowhere/at-all" in wrong.failure
