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
from soundprompt.app.arguments import StudioOptions
from soundprompt.app.audio_input import hear, portrait, spectrogram
from soundprompt.app.bootstrap import BAR, Miniature
from soundprompt.app.jobs import Outcome, Step, Stops, draw
from soundprompt.app.models import Choice, ModelError, Shelf, base_of, find, kind_of, resolve
from soundprompt.app.validation import WishError, checked
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
def folders(tmp_path: Path) -> StudioOptions:
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
    return StudioOptions(models=str(tmp_path / "models"), runs=str(tmp_path / "runs"))


def test_a_sound_is_heard_whole_and_shown(wav: Path):
    sound = hear(str(wav), StudioOptions())
    assert sound.duration_s == 2.0 and sound.lost == ""
    assert np.array_equal(sound.waveform, soundfile.read(wav, dtype="float32")[0])
    levels = spectrogram(sound)
    loudest = levels.mean(1).argmax()
    hertz = 700 * (10 ** (loudest / 96 * np.log10(1 + 12_000 / 700)) - 1)
    assert 330 < hertz < 570  # the band of the tone's 440 Hz
    first, again = portrait(sound), portrait(sound)
    assert first.size == (900, 287) and np.array_equal(np.asarray(first), np.asarray(again))
    louder = portrait(hear(str(_other(wav)), StudioOptions()))
    assert not np.array_equal(np.asarray(first), np.asarray(louder))


def _other(wav: Path) -> Path:
    path = wav.with_name("other.wav")
    soundfile.write(path, tone(2000), RATE)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"I am a text and no sound.\n" * 20, "not a sound file"),
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
        hear(str(path), StudioOptions())
    message = str(caught.value)
    assert said in message and message.startswith("The recording")
    assert str(tmp_path) not in message and "secret" not in message


def test_no_sound_too_long_and_too_large_are_refused(wav: Path):
    with pytest.raises(AudioError, match="no sound yet"):
        hear(None, StudioOptions())
    with pytest.raises(AudioError, match=r"longer than 1\.5 s"):
        hear(str(wav), StudioOptions(max_sound_s=1.5))
    assert hear(str(wav), StudioOptions(max_sound_s=2.0)).duration_s == 2.0
    with pytest.raises(AudioError, match=r"0\.1 MB, and 0\.05 MB are the most"):
        hear(str(wav), StudioOptions(max_upload_mb=0.05))


def test_what_was_lost_of_a_sound_is_said(wav: Path):
    half = wav.with_name("half.wav")
    half.write_bytes(wav.read_bytes()[:50_000])
    sound = hear(str(half), StudioOptions())
    assert 0.5 < sound.duration_s < 1.5
    assert sound.lost.startswith("The recording is cut short") and "half" not in sound.lost


def test_a_wish_keeps_to_its_limits():
    options = StudioOptions(max_text=10)
    wish = checked({}, options)
    assert (wish.steps, wish.seed, wish.pictures, wish.audio_scale) == (20, 0, 1, 1.0)
    assert wish.choice == Choice("mini", "mini", "none")
    assert wish.arguments["prompt"] is None
    assert checked({"prompt": "  at \n night "}, options).prompt == "at night"
    assert checked({"adapter": "", "base": " x "}, options).choice == Choice("x", "mini", "none")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", "x" * 11), ("negative_prompt", "x" * 11), ("steps", 0), ("steps", 51),
        ("steps", 2.5), ("steps", "many"), ("seed", -1), ("seed", 2**32), ("pictures", 5),
        ("guidance_scale", float("nan")), ("guidance_scale", 0.5), ("audio_scale", 2.1),
        ("ambience", float("inf")), ("foreground", -0.1), ("relation", "friendly"),
    ],
)  # fmt: skip
def test_a_wish_beyond_its_limits_is_refused_by_name(field: str, value: object):
    with pytest.raises(WishError) as caught:
        checked({field: value}, StudioOptions(max_text=10))
    known = {"prompt": "text", "guidance_scale": "guidance", "pictures": "number of pictures"}
    assert known.get(field, field).replace("_prompt", "").replace("_", " ") in str(caught.value)


def test_levels_need_an_adapter():
    with pytest.raises(WishError, match="by an adapter only"):
        checked({"background": 0.5}, StudioOptions())
    assert checked({}, StudioOptions()).arguments["level_scales"] is None
    wish = checked({"background": 0.5, "adapter": "x"}, StudioOptions())
    assert wish.arguments["level_scales"] == {"foreground": 1, "background": 0.5, "ambience": 1}


def test_models_are_found_by_what_they_hold(folders: StudioOptions):
    found = find(folders)
    models, runs = Path(folders.models), Path(folders.runs)
    assert list(found.base) == ["mini", str(models / "sd")]
    assert list(found.encoder) == ["mini", str(models / "deep/er/ears"), str(runs / "align/mine")]
    assert list(found.adapter) == [str(models / "gates")]
    assert kind_of(models / "broken") is None and kind_of(models / "other") is None
    assert base_of(str(models / "deep/er/ears"), found) == str(models / "sd")
    assert base_of("someone/ears", found) is None


def test_models_are_named_or_come_from_the_hub(folders: StudioOptions):
    sd = str(Path(folders.models) / "sd")
    assert resolve("base", f" {sd} ", folders) == sd
    assert resolve("base", "owner/name", folders) == "owner/name"
    for name in ("nonsense", "/etc", "../x/y", "docs/images", str(folders.models), "a/b/c"):
        with pytest.raises(ModelError, match="There is no base"):
            resolve("base", name, folders)
    folders.hub = False
    with pytest.raises(ModelError, match="There is no encoder 'owner/name' here"):
        resolve("encoder", "owner/name", folders)


class Kept:
    """What a shelf keeps, and what was asked of it."""

    def __init__(self, *names: object) -> None:
        self.names = names
        self.worn: str | None = None

    def exchange(self, adapter: str | None) -> None:
        self.worn = adapter


def test_the_shelf_loads_once_and_keeps_the_last_few(folders: StudioOptions):
    loaded: list[Kept] = []
    folders.kept = 2
    shelf = Shelf(folders, lambda *names: loaded.append(Kept(*names)) or loaded[-1])
    one, other, third = (Choice(f"x/{n}", encoder=f"x/{n}") for n in "abc")
    first = shelf.take(one)
    assert shelf.take(one) is first and len(loaded) == 1
    shelf.take(other)
    assert shelf.take(one) is first
    shelf.take(third)  # `other` was used longest ago
    assert shelf.take(one) is first and len(shelf) == 2 and len(loaded) == 3
    shelf.take(other)
    assert loaded[-1].names == ("x/b", "x/b", None) and len(loaded) == 4


def test_encoders_and_adapters_share_a_base(folders: StudioOptions):
    folders.kept = 1
    shelf = Shelf(folders, Kept)
    gates = str(Path(folders.models) / "gates")
    first = shelf.take(Choice(encoder="x/a"))
    assert shelf.take(Choice(encoder="x/a", adapter=gates)) is first and first.worn == gates
    assert shelf.take(Choice(encoder="x/a")) is first and first.worn is None
    second = shelf.take(Choice(encoder="x/b"))
    assert second.names == ("mini", "x/b", first)
    with pytest.raises(ModelError, match="There is no adapter 'owner/name' here"):
        shelf.take(Choice(encoder="x/b", adapter="owner/name"))


def _slowly(steps: int = 200):
    def work(tell):
        for i in range(steps):
            if tell(i + 1, steps):
                return i + 1
            time.sleep(0.01)
        return steps

    return work


def test_a_drawing_tells_every_step_and_its_result():
    news = list(draw(_slowly(5), threading.Event(), 60))
    assert news == [*(Step(i, 5) for i in range(1, 6)), Outcome(5)]


def test_a_drawing_is_stopped_by_its_visitor_by_its_limit_and_by_being_left():
    stops = Stops()
    with stops.event("mine") as mine, stops.event("theirs") as theirs:
        news = draw(_slowly(), mine, 60)
        next(news)
        assert stops.stop("mine") and not theirs.is_set()
        assert list(news)[-1].result < 200
    assert not stops.stop("mine")
    assert list(draw(_slowly(), threading.Event(), 0.1))[-1].late
    left = threading.Event()
    news = draw(_slowly(), left, 60)
    next(news)
    news.close()
    assert left.is_set()


def test_a_failed_drawing_hands_over_its_error():
    def fail(tell):
        raise RuntimeError("no")

    (outcome,) = draw(fail, threading.Event(), 60)
    assert isinstance(outcome.error, RuntimeError)


def test_words_are_escaped():
    assert "<script>" not in words.status("<script>", 1, 2, alert=True)
    assert "<b>" not in words.notice("<b>")
    assert 'role="alert"' in words.status("x", alert=True)
    assert 'value="3" max="20"' in words.step(3, 20, 2)


def test_bars_of_a_training_are_read():
    match = BAR.match("train features:  17%|█▋        | 255/1500 [00:05<00:25, 48.0it/s]")
    assert match and match.groups() == ("train features", "255", "1500")
    match = BAR.match("100%|██████████| 150/150 [02:18<00:00,  1.08it/s]")
    assert match and match.groups() == (None, "150", "150")


@pytest.mark.slow
def test_help_lists_every_option_and_a_wrong_one_is_refused():
    run = subprocess.run(
        [sys.executable, ROOT / "app.py", "--help"], capture_output=True, text=True, check=True
    )
    assert all(f"--{name}" in run.stdout for name in vars(StudioOptions()))
    with pytest.raises(ValueError, match="--max_steps is 0"):
        StudioOptions(max_steps=0)


def test_the_page_on_the_app_states_the_defaults():
    text = (ROOT / "docs/guides/app.md").read_text()
    rows = re.findall(r"^\| `--(\w+)` \| (\S+) \|", text, re.MULTILINE)
    assert len(rows) >= 6
    assert all(float(value) == getattr(StudioOptions(), name) for name, value in rows)


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
    models = ("--base", tiny_base, "--backbone", tiny_clap, "--data", str(sound_folder))
    bars = [word for word in SHORT if word not in ("--disable_tqdm",)]
    bars.pop(bars.index("--use_cpu") - 1)  # the value of --disable_tqdm
    # Long enough for its progress to be seen on the way, on any machine.
    miniature = Miniature(tmp_path / "run", *models, *bars, "--num_train_epochs", "60")
    assert not miniature.ready
    miniature.start()
    process = miniature._process
    miniature.start()
    assert miniature._process is process  # one training, however many visitors
    seen, end = set(), time.monotonic() + 300
    while not miniature.ready and not miniature.failure and time.monotonic() < end:
        seen.add(miniature.share)
        time.sleep(0.01)
    assert miniature.ready and len(seen) > 2 and max(seen) <= 1
    miniature.start()
    assert miniature._process is process

    wrong = Miniature(tmp_path / "other", "--base", "nowhere/at-all")
    wrong.start()
    while not wrong.failure:
        assert not wrong.ready and time.monotonic() < end
        time.sleep(0.05)
    assert "nowhere/at-all" in wrong.failure
