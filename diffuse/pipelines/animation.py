"""Video from audio: one audio segment per frame, and video files."""

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
    """Check that the extension of a file names a supported video format.

    Args:
        path: Output file.

    Raises:
        ValueError: If the extension is not one of ANIMATION_EXTENSIONS.
    """
    if path.suffix.lower() not in ANIMATION_EXTENSIONS:
        raise ValueError(
            f"a video is saved as {' or '.join(ANIMATION_EXTENSIONS)}, not {path.name!r}"
        )


def save_video(
    path: Path, frames: Sequence[Image.Image], fps: float, waveform: np.ndarray, sampling_rate: int
) -> None:
    """Save frames as a GIF, or as an MP4 with audio.

    Args:
        path: Output file with one of ANIMATION_EXTENSIONS.
        frames: Images of equal size.
        fps: Frames per second.
        waveform: Audio of the whole video, float32 (N,). A GIF has no audio.
        sampling_rate: Sampling rate of the waveform in Hz.

    Raises:
        ValueError: If the extension is not supported.
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
        # Players require even sides and chroma subsampling.
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
    """Audio segments around evenly spaced times, one per video frame.

    Attributes:
        waveform: The whole audio, float32 (N,).
        sampling_rate: Sampling rate of the waveform in Hz.
        segments: One audio segment per frame, float32.
    """

    waveform: np.ndarray
    sampling_rate: int
    segments: list[np.ndarray]

    @classmethod
    def from_audio(cls, clip: Any, sampling_rate: int, fps: float, window_s: float) -> AudioFrames:
        """Read audio and split it into one segment per frame; there is at least one frame.

        Args:
            clip: Audio input as `align.audio.read` takes it.
            sampling_rate: Sampling rate of the encoder in Hz.
            fps: Frames per second.
            window_s: Length of a segment in seconds. Overlapping segments smooth the video.

        Raises:
            AudioError: If the audio cannot be read or is silent.
            ValueError: If `fps` or `window_s` is not positive.
        """
        check_frame_rate(fps, window_s)
        waveform = read(clip, sampling_rate)
        count = max(1, round(len(waveform) / sampling_rate * fps))
        length = min(len(waveform), max(1, round(window_s * sampling_rate)))
        centers = (np.arange(count) + 0.5) / count * len(waveform)
        starts = np.clip(centers - length / 2, 0, len(waveform) - length).astype(int)
        return cls(waveform, sampling_rate, [waveform[s : s + length] for s in starts])

    def has_audio(self) -> list[bool]:
        """Return for each frame whether its segment is not silent."""
        return [bool(np.abs(s).max(initial=0.0) >= SILENCE_THRESHOLD) for s in self.segments]

    def source_frames(self) -> list[int]:
        """Return for each frame the index of the frame whose segment it is generated from.

        A silent frame repeats the last frame with audio; leading silent frames use the first one.
        """
        audible_frames = np.flatnonzero(self.has_audio())
        before = np.maximum(
            np.searchsorted(audible_frames, np.arange(len(self.segments)), "right") - 1, 0
        )
        return [int(i) for i in audible_frames[before]]


def check_frame_rate(fps: float, window_s: float) -> None:
    """Check that the frame rate and the window are positive and finite.

    Args:
        fps: Frames per second.
        window_s: Seconds of audio per frame.

    Raises:
        ValueError: If they are not.
    """
    if not (0 < fps < math.inf and 0 < window_s < math.inf):
        raise ValueError(f"fps and window_s must be positive, not {fps} and {window_s}")
