"""Films: frames, and their sound, in a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.audio.waveform import SILENCE, read

KINDS = (".gif", ".mp4")


def check_film(path: Path) -> None:
    """Refuses a file's name that tells no kind of film.

    Raises:
        ValueError: its ending is none of KINDS.
    """
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"a film is written as {' or '.join(KINDS)}, not {path.name!r}")


def save_film(
    path: Path, frames: Sequence[Image.Image], fps: float, waveform: np.ndarray, rate: int
) -> None:
    """Writes frames as a GIF, or with their sound as an MP4.

    Args:
        path: ends in one of KINDS.
        frames: of one size.
        fps: frames a second.
        waveform: float32 (N,), of the whole film; a GIF is mute.
        rate: its samples a second.

    Raises:
        ValueError: the path tells no kind of film.
    """
    check_film(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        first, *rest = frames
        first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
        return
    _save_mp4(path, frames, fps, waveform, rate)


def _save_mp4(
    path: Path, frames: Sequence[Image.Image], fps: float, waveform: np.ndarray, rate: int
) -> None:
    import av

    with av.open(str(path), "w") as film:
        picture = film.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        # Players want even sides, and colours at half the resolution.
        picture.width, picture.height = (side - side % 2 for side in frames[0].size)
        picture.pix_fmt = "yuv420p"
        sound = film.add_stream("aac", rate=rate, layout="mono")
        for image in frames:
            film.mux(picture.encode(av.VideoFrame.from_image(image.convert("RGB"))))
        film.mux(picture.encode(None))
        samples = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        samples.sample_rate = rate
        film.mux(sound.encode(samples))
        film.mux(sound.encode(None))


@dataclass(frozen=True)
class Moments:
    """A recording in stretches around evenly spaced points of time.

    Attributes:
        waveform: the whole recording, float32 (N,).
        rate: its samples a second.
        stretches: one a frame, float32.
    """

    waveform: np.ndarray
    rate: int
    stretches: list[np.ndarray]

    @classmethod
    def of(cls, recording: Any, rate: int, fps: float, window_s: float) -> Moments:
        """As many moments as the recording's length has frames, at least one.

        Args:
            recording: anything that `align.audio.read` takes.
            rate: the encoder's samples a second.
            fps: frames a second.
            window_s: length of a stretch; longer than a frame, it makes the film smoother.

        Raises:
            AudioError: the recording cannot be read or has nothing to hear.
            ValueError: fps or window_s are not positive.
        """
        check_pace(fps, window_s)
        waveform = read(recording, rate)
        count = max(1, round(len(waveform) / rate * fps))
        length = min(len(waveform), max(1, round(window_s * rate)))
        centres = (np.arange(count) + 0.5) / count * len(waveform)
        starts = np.clip(centres - length / 2, 0, len(waveform) - length).astype(int)
        return cls(waveform, rate, [waveform[s : s + length] for s in starts])

    def audible(self) -> list[bool]:
        """Whether there is anything to hear, by frame."""
        return [bool(np.abs(s).max(initial=0.0) >= SILENCE) for s in self.stretches]

    def shown(self) -> list[int]:
        """For every frame, the frame whose moment it shows.

        A silent one shows what was heard last; before the first sound, what will be heard first.
        """
        there = np.flatnonzero(self.audible())
        before = np.maximum(np.searchsorted(there, np.arange(len(self.stretches)), "right") - 1, 0)
        return [int(i) for i in there[before]]


def check_pace(fps: float, window_s: float) -> None:
    """Refuses a film without frames, or frames that hear nothing.

    Raises:
        ValueError: frames a second or the seconds they hear are not positive.
    """
    if not (0 < fps < math.inf and 0 < window_s < math.inf):
        raise ValueError(f"frames a second and windows are positive, not {fps} and {window_s}")
