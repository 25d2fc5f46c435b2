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

from align.audio.waveform import SILENCE_THRESHOLD, read

ANIMATION_EXTENSIONS = (".gif", ".mp4")


def check_video_path(path: Path) -> None:
    """Refuses a file's name that tells no kind of film.

    Raises:
        ValueError: its ending is none of KINDS.
    """
    if path.suffix.lower() not in ANIMATION_EXTENSIONS:
        raise ValueError(
            f"a film is written as {' or '.join(ANIMATION_EXTENSIONS)}, not {path.name!r}"
        )


def save_video(
    path: Path, frames: Sequence[Image.Image], fps: float, waveform: np.ndarray, sampling_rate: int
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
    check_video_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        first, *rest = frames
        first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
        return
    _save_mp4(path, frames, fps, waveform, sampling_rate)


def _save_mp4(
    path: Path, frames: Sequence[Image.Image], fps: float, waveform: np.ndarray, sampling_rate: int
) -> None:
    import av

    with av.open(str(path), "w") as container:
        video_stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        # Players want even sides, and colours at half the resolution.
        video_stream.width, video_stream.height = (side - side % 2 for side in frames[0].size)
        video_stream.pix_fmt = "yuv420p"
        audio_stream = container.add_stream("aac", rate=sampling_rate, layout="mono")
        for image in frames:
            container.mux(video_stream.encode(av.VideoFrame.from_image(image.convert("RGB"))))
        container.mux(video_stream.encode(None))
        samples = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        samples.sample_rate = sampling_rate
        container.mux(audio_stream.encode(samples))
        container.mux(audio_stream.encode(None))


@dataclass(frozen=True)
class AudioFrames:
    """A recording in stretches around evenly spaced points of time.

    Attributes:
        waveform: the whole recording, float32 (N,).
        rate: its samples a second.
        stretches: one a frame, float32.
    """

    waveform: np.ndarray
    sampling_rate: int
    segments: list[np.ndarray]

    @classmethod
    def from_audio(cls, clip: Any, sampling_rate: int, fps: float, window_s: float) -> AudioFrames:
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
        check_frame_rate(fps, window_s)
        waveform = read(clip, sampling_rate)
        count = max(1, round(len(waveform) / sampling_rate * fps))
        length = min(len(waveform), max(1, round(window_s * sampling_rate)))
        centers = (np.arange(count) + 0.5) / count * len(waveform)
        starts = np.clip(centers - length / 2, 0, len(waveform) - length).astype(int)
        return cls(waveform, sampling_rate, [waveform[s : s + length] for s in starts])

    def has_audio(self) -> list[bool]:
        """Whether there is anything to hear, by frame."""
        return [bool(np.abs(s).max(initial=0.0) >= SILENCE_THRESHOLD) for s in self.segments]

    def source_frames(self) -> list[int]:
        """For every frame, the frame whose moment it shows.

        A silent one shows what was heard last; before the first sound, what will be heard first.
        """
        audible_frames = np.flatnonzero(self.has_audio())
        before = np.maximum(
            np.searchsorted(audible_frames, np.arange(len(self.segments)), "right") - 1, 0
        )
        return [int(i) for i in audible_frames[before]]


def check_frame_rate(fps: float, window_s: float) -> None:
    """Refuses a film without frames, or frames that hear nothing.

    Raises:
        ValueError: frames a second or the seconds they hear are not positive.
    """
    if not (0 < fps < math.inf and 0 < window_s < math.inf):
        raise ValueError(f"frames a second and windows are positive, not {fps} and {window_s}")
