"""Unusual but harmless inputs: videos, hours of audio, very short clips, emoji."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from align.audio.files import AudioError
from soundprompt.app.arguments import AppArguments
from soundprompt.app.audio_input import read_upload
from soundprompt.app.validation import InvalidRequestError, validate_request
from tests.conftest import RATE, tone
from tests.helpers.films import film
from tests.helpers.pages import Served, connect, generate, serve


def wav(path: Path, samples: np.ndarray, rate: int = RATE, **kwargs: str) -> Path:
    soundfile.write(path, samples, rate, **kwargs)
    return path


def text(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(content)
    return path


STEREO = np.stack([tone(440, 2.0, 192_000), tone(880, 2.0, 192_000)], 1)
LONG = np.tile(tone(100, 1.0, 1000), 3 * 3600)  # three hours, at 1 kHz
BROKEN = np.where(np.arange(RATE) == 100, np.nan, tone(440, 1.0))

ACCEPTED = {
    "stereo at 192 kHz": lambda d: wav(d / "a.wav", STEREO, 192_000, subtype="PCM_24"),
    "m4a": lambda d: film(d / "a.m4a", image=False),
    "video": lambda d: film(d / "a.mp4"),
    "video named .wav": lambda d: film(d / "a.wav"),
    "emoji in the name": lambda d: wav(d / "🐕 bark ✨.wav", tone(440)),
}
REJECTED = {
    "three hours": (
        lambda d: wav(d / "a.wav", LONG, 1000, subtype="PCM_U8"), "longer than 60 s"
    ),
    "video without audio": (lambda d: film(d / "a.mp4", audio=False), "no audio track"),
    "empty file": (lambda d: text(d / "a.wav"), "is empty (0 bytes)"),
    "no samples": (lambda d: wav(d / "a.wav", np.zeros(0)), "has no samples"),
    "very short": (lambda d: wav(d / "a.wav", tone(440, 0.02)), "too short"),
    "all zeros": (lambda d: wav(d / "a.wav", np.zeros(RATE)), "is silent"),
    "NaN samples": (lambda d: wav(d / "a.wav", BROKEN, subtype="FLOAT"), "NaN"),
    "image": (lambda d: text(d / "a.png", b"\x89PNG\r\n\x1a\n" * 9), "not a readable audio file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCEPTED)
def test_read_upload_accepts(kind: str, tmp_path: Path):
    audio = read_upload(str(ACCEPTED[kind](tmp_path)), AppArguments())
    assert 1.9 < audio.duration_s < 2.2
    assert 0.3 < np.abs(audio.waveform).max() < 0.5


@pytest.mark.parametrize("kind", REJECTED)
def test_read_upload_rejects_with_a_sentence(kind: str, tmp_path: Path):
    make, reason = REJECTED[kind]
    with pytest.raises(AudioError) as caught:
        read_upload(str(make(tmp_path)), AppArguments())
    message = str(caught.value)
    assert reason in message and message.endswith(".") and str(tmp_path) not in message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -5}, "The seed is -5: give a number from 0 to 4294967295."),
        ({"seed": 1e30}, "The seed is 1e+30: give a number from 0 to 4294967295."),
        ({"seed": ""}, "The seed is '': give a number"),
        (
            {"num_inference_steps": 10**9},
            "The number of steps is 1000000000: give a number from 1 to 50.",
        ),
        ({"num_inference_steps": float("inf")}, "The number of steps is inf"),
        ({"num_inference_steps": [1]}, "The number of steps is [1]"),
        ({"num_images": 99}, "give a number from 1 to 4."),
        ({"guidance_scale": "NaN"}, "The guidance scale is 'NaN': give a number from 1 to 15."),
        ({"prompt": "half a dog \ud83d"}, "The prompt contains half of a character"),
    ],
)
def test_validate_request_rejects_with_a_sentence(given: dict[str, object], message: str):
    with pytest.raises(InvalidRequestError, match=re.escape(message)):
        validate_request(given, AppArguments())


PROMPTS = (
    "🐕\u200d🦺 barks 🎸✨", "犬が吠える", "نباح كلب", "<script>alert(1)</script>",
    "\x00 \x07", "a" * 300,
)  # fmt: skip


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    with serve(models) as page:
        yield page


@pytest.mark.slow
def test_generate_with_unusual_audio_and_prompts(served: Served, tmp_path: Path):
    client = connect(served)
    for make in ACCEPTED.values():
        assert len(generate(client, make(tmp_path))[0]) == 1
    audio = ACCEPTED["m4a"](tmp_path)
    for prompt in PROMPTS:
        _, metadata, status = generate(client, audio, prompt=prompt)
        assert metadata["prompt"] == " ".join(prompt.split()) and "<script>" not in status
