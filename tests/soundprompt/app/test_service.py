"""The app without a browser or a server: its limits, its models, its drawing, its words."""

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
from soundprompt.app import messages as words
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
    path = tmp_path / "a visitor's tone.wav"
    soundfile.write(path, tone(440), RATE)
    return path


@pytest.fixture()
def folders(tmp_path: Path) -> AppArguments:
    """A models folder with one of each kind, by what tells them apart, and a run."""
    for name, file, content in (
        ("models/sd", "model_index.json", {}),
        ("models/sd/unet", "config.json", {"model_type": "audio_prompt"}),
        ("models/deep/er/ears", "config.json", {"model_type": "audio_prompt"}),
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
    (tmp_path / "models/deep/er/ears/config.json").write_text(json.dumps(config))
    return AppArguments(models_dir=str(tmp_path / "models"), runs_dir=str(tmp_path / "runs"))


def test_a_sound_is_heard_whole_and_shown(wav: Path):
    sound = read_upload(str(wav), AppArguments())
    assert sound.duration_s == 2.0 and sound.decode_warnings == ""
    assert np.array_equal(sound.waveform, soundfile.read(wav, dtype="float32")[0])
    levels = spectrogram(sound)
    loudest = levels.mean(1).argmax()
    hertz = 700 * (10 ** (loudest / 96 * np.log10(1 + 12_000 / 700)) - 1)
    assert 330 < hertz < 570  # the band of the tone's 440 Hz
    first, again = plot_audio(sound), plot_audio(sound)
    assert first.size == (900, 287) and np.array_equal(np.asarray(first), np.asarray(again))
    louder = plot_audio(read_upload(str(_other(wav)), AppArguments()))
    assert not np.array_equal(np.asarray(first), np.asarray(louder))


def _other(wav: Path) -> Path:
    path = wav.with_name("other.wav")
    soundfile.write(path, tone(2000), RATE)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"I am a text and no sound.\n" * 20, "not a readable audio file"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_sound_is_refused_without_telling_where_it_lies(
    tmp_path: Path, content: bytes | None, said: str
):
    path = tmp_path / "secret place.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_upload(str(path), AppArguments())
    message = str(caught.value)
    assert said in message and message.startswith("The recording")
    assert str(tmp_path) not in message and "secret" not in message


def test_no_sound_too_long_and_too_large_are_refused(wav: Path):
    with pytest.raises(AudioError, match="no sound yet"):
        read_upload(None, AppArguments())
    with pytest.raises(AudioError, match=r"longer than 1\.5 s"):
        read_upload(str(wav), AppArguments(max_audio_s=1.5))
    assert read_upload(str(wav), AppArguments(max_audio_s=2.0)).duration_s == 2.0
    with pytest.raises(AudioError, match=r"0\.1 MB, and 0\.05 MB are the most"):
        read_upload(str(wav), AppArguments(max_upload_mb=0.05))


def test_what_was_lost_of_a_sound_is_said(wav: Path):
    half = wav.with_name("half.wav")
    half.write_bytes(wav.read_bytes()[:50_000])
    sound = read_upload(str(half), AppArguments())
    assert 0.5 < sound.duration_s < 1.5
    assert (
        sound.decode_warnings.startswith("The recording is truncated")
        and "half" not in sound.decode_warnings
    )


def test_a_wish_keeps_to_its_limits():
    options = AppArguments(max_prompt_length=10)
    wish = validate_request({}, options)
    assert (wish.num_inference_steps, wish.seed, wish.num_images, wish.audio_scale) == (
        20,
        0,
        1,
        1.0,
    )
    assert wish.models == ModelChoice("mini", "mini", "none")
    assert wish.pipeline_kwargs["prompt"] is None
    assert validate_request({"prompt": "  at \n night "}, options).prompt == "at night"
    assert validate_request({"adapter": "", "base": " x "}, options).models == ModelChoice(
        "x", "mini", "none"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "x" * 11), ("negative_prompt", "x" * 11), ("num_inference_steps", 0), ("num_inference_steps", 51),
        ("num_inference_steps", 2.5), ("num_inference_steps", "many"), ("seed", -1), ("seed", 2**32), ("num_images", 5),
        ("guidance_scale", float("nan")), ("guidance_scale", 0.5), ("audio_scale", 2.1),
        ("ambience", float("inf")), ("foreground", -0.1), ("relation", "friendly"),
    ],
)  # fmt: skip
def test_a_wish_beyond_its_limits_is_refused_by_name(field: str, value: object):
    with pytest.raises(InvalidRequestError) as caught:
        validate_request({field: value}, AppArguments(max_prompt_length=10))
    known = {"prompt": "text", "guidance_scale": "guidance", "images": "number of pictures"}
    assert known.get(field, field).replace("_prompt", "").replace("_", " ") in str(caught.value)


def test_levels_need_an_adapter():
    with pytest.raises(InvalidRequestError, match="by an adapter only"):
        validate_request({"background": 0.5}, AppArguments())
    assert validate_request({}, AppArguments()).pipeline_kwargs["level_scales"] is None
    wish = validate_request({"background": 0.5, "adapter": "x"}, AppArguments())
    assert wish.pipeline_kwargs["level_scales"] == {
        "foreground": 1,
        "background": 0.5,
        "ambience": 1,
    }


def test_models_are_found_by_what_they_hold(folders: AppArguments):
    found = find_models(folders)
    models, runs = Path(folders.models_dir), Path(folders.runs_dir)
    assert list(found.base_model) == ["mini", str(models / "sd")]
    assert list(found.encoder) == ["mini", str(models / "deep/er/ears"), str(runs / "align/mine")]
    assert list(found.adapter) == [str(models / "gates")]
    assert model_kind(models / "broken") is None and model_kind(models / "other") is None
    assert base_model_of(str(models / "deep/er/ears"), found) == str(models / "sd")
    assert base_model_of("someone/ears", found) is None


def test_models_are_named_or_come_from_the_hub(folders: AppArguments):
    sd = str(Path(folders.models_dir) / "sd")
    assert resolve_model("base", f" {sd} ", folders) == sd
    assert resolve_model("base", "owner/name", folders) == "owner/name"
    for name in ("nonsense", "/etc", "../x/y", "docs/images", str(folders.models_dir), "a/b/c"):
        with pytest.raises(ModelError, match="There is no base"):
            resolve_model("base", name, folders)
    folders.allow_hub = False
    with pytest.raises(ModelError, match="There is no encoder 'owner/name' here"):
        resolve_model("encoder", "owner/name", folders)


class Kept:
    """What a shelf keeps, and what was asked of it."""

    def __init__(self, *names: object) -> None:
        self.names = names
        self.worn: str | None = None

    def exchange(self, adapter: str | None) -> None:
        self.worn = adapter


def test_the_shelf_loads_once_and_keeps_the_last_few(folders: AppArguments):
    loaded: list[Kept] = []
    folders.max_loaded_models = 2
    shelf = PipelineCache(folders, lambda *names: loaded.append(Kept(*names)) or loaded[-1])
    one, other, third = (ModelChoice(f"x/{n}", encoder=f"x/{n}") for n in "abc")
    first = shelf.get(one)
    assert shelf.get(one) is first and len(loaded) == 1
    shelf.get(other)
    assert shelf.get(one) is first
    shelf.get(third)  # `other` was used longest ago
    assert shelf.get(one) is first and len(shelf) == 2 and len(loaded) == 3
    shelf.get(other)
    assert loaded[-1].names == ("x/b", "x/b", None) and len(loaded) == 4


def test_encoders_and_adapters_share_a_base(folders: AppArguments):
    folders.max_loaded_models = 1
    shelf = PipelineCache(folders, Kept)
    gates = str(Path(folders.models_dir) / "gates")
    first = shelf.get(ModelChoice(encoder="x/a"))
    assert shelf.get(ModelChoice(encoder="x/a", adapter=gates)) is first and first.worn == gates
    assert shelf.get(ModelChoice(encoder="x/a")) is first and first.worn is None
    second = shelf.get(ModelChoice(encoder="x/b"))
    assert second.names == ("mini", "x/b", first)
    with pytest.raises(ModelError, match="There is no adapter 'owner/name' here"):
        shelf.get(ModelChoice(encoder="x/b", adapter="owner/name"))


def _slowly(steps: int = 200):
    def work(tell):
        for i in range(steps):
            if tell(i + 1, steps):
                return i + 1
            time.sleep(0.01)
        return steps

    return work


def test_a_drawing_tells_every_step_and_its_result():
    news = list(run_job(_slowly(5), threading.Event(), 60))
    assert news == [*(StepUpdate(i, 5) for i in range(1, 6)), JobResult(5)]


def test_a_drawing_is_stopped_by_its_visitor_by_its_limit_and_by_being_left():
    stops = RunningJobs()
    with stops.register("mine") as mine, stops.register("theirs") as theirs:
        news = run_job(_slowly(), mine, 60)
        next(news)
        assert stops.stop("mine") and not theirs.is_set()
        assert list(news)[-1].result < 200
    assert not stops.stop("mine")
    assert list(run_job(_slowly(), threading.Event(), 0.1))[-1].timed_out
    left = threading.Event()
    news = run_job(_slowly(), left, 60)
    next(news)
    news.close()
    assert left.is_set()


def test_a_failed_drawing_hands_over_its_error():
    def fail(tell):
        raise RuntimeError("no")

    (outcome,) = run_job(fail, threading.Event(), 60)
    assert isinstance(outcome.error, RuntimeError)


def test_words_are_escaped():
    assert "<script>" not in words.status("<script>", 1, 2, alert=True)
    assert "<b>" not in words.notice("<b>")
    assert 'role="alert"' in words.status("x", alert=True)
    assert 'value="3" max="20"' in words.generation_progress(3, 20, 2)


def test_bars_of_a_training_are_read():
    match = PROGRESS_BAR.match("train features:  17%|█▋        | 255/1500 [00:05<00:25, 48.0it/s]")
    assert match and match.groups() == ("train features", "255", "1500")
    match = PROGRESS_BAR.match("100%|██████████| 150/150 [02:18<00:00,  1.08it/s]")
    assert match and match.groups() == (None, "150", "150")


@pytest.mark.slow
def test_help_lists_every_option_and_a_wrong_one_is_refused():
    run = subprocess.run(
        [sys.executable, ROOT / "app.py", "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"--{name}" in run.stdout for name in vars(AppArguments()))
    with pytest.raises(ValueError, match="--max_steps is 0"):
        AppArguments(max_inference_steps=0)


def test_the_page_on_the_app_states_the_defaults():
    text = (ROOT / "docs/guides/app.md").read_text()
    rows = re.findall(r"^\| `--(\w+)` \| (\S+) \|", text, re.MULTILINE)
    assert len(rows) >= 6
    assert all(float(value) == getattr(AppArguments(), name) for name, value in rows)


@pytest.mark.slow
def test_the_command_serves_the_page_at_its_port_and_ends_cleanly(tmp_path: Path):
    """A miniature is begun to be trained, and ended with the page."""
    port = free_port()
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    line = [sys.executable, ROOT / "app.py", "--runs", tmp_path]
    serves_and_ends(line, port, cwd=tmp_path, env=environment)
    end = time.monotonic() + 30  # what was told to end needs a moment on a busy machine
    while (left := [name for name in _processes() if str(tmp_path) in name]) and (
        time.monotonic() < end
    ):
        time.sleep(0.1)
    assert not left


def _processes() -> list[str]:
    """Command lines of what runs here; nothing where the system does not tell."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


@pytest.mark.slow
def test_the_miniature_learns_once_and_says_how_far_it_is(
    tmp_path: Path, tiny_base: str, tiny_clap: str, sound_folder: Path
):
    models = ("--base_model", tiny_base, "--backbone", tiny_clap, "--dataset", str(sound_folder))
    bars = [word for word in SHORT if word not in ("--disable_tqdm",)]
    bars.pop(bars.index("--use_cpu") - 1)  # the value of --disable_tqdm
    # Long enough for its progress to be seen on the way, on any machine.
    miniature = MiniEncoderTraining(tmp_path / "run", *models, *bars, "--num_train_epochs", "60")
    assert not miniature.ready
    miniature.start()
    process = miniature._process
    miniature.start()
    assert miniature._process is process  # one training, however many visitors
    seen, end = set(), time.monotonic() + 300
    while not miniature.ready and not miniature.failure and time.monotonic() < end:
        seen.add(miniature.progress)
        time.sleep(0.01)
    assert miniature.ready and len(seen) > 2 and max(seen) <= 1
    miniature.start()
    assert miniature._process is process

    wrong = MiniEncoderTraining(tmp_path / "other", "--base_model", "nowhere/at-all")
    wrong.start()
    while not wrong.failure:
        assert not wrong.ready and time.monotonic() < end
        time.sleep(0.05)
    assert "nowhere/at-all" in wrong.failure
