"""Extraction of audio segments and frames from media files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from align.audio.files import AudioError
from align.audio.waveform import SILENCE_THRESHOLD, windows

SAMPLE_RATE = 48_000  # of CLAP; other encoders resample
BLOCK_S = 0.25  # resolution of the start of a segment
VIDEO_EXTENSIONS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".flv", ".m4v")


def read_audio_segment(path: Path, start_s: float, duration_s: float) -> np.ndarray:
    """Read a segment of an audio or video file at SAMPLE_RATE, float32 (N,).

    The start is accurate to a quarter of a second. The segment is shorter than `duration_s` where
    the file ends earlier.

    Args:
        path: Audio or video file.
        start_s: Start of the segment in seconds.
        duration_s: Length of the segment in seconds.

    Raises:
        AudioError: If the file cannot be read or the segment is silent.
    """
    blocks = []
    for block in windows(path, SAMPLE_RATE, BLOCK_S):
        if block.start_s >= start_s + duration_s:
            break  # the rest is not decoded
        if block.start_s >= start_s - BLOCK_S / 2:
            blocks.append(block.samples)
    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if len(waveform) < SAMPLE_RATE // 10 or is_silent(waveform):
        raise AudioError(f"{path} has no audio after {start_s:g} s")
    return waveform[: round(duration_s * SAMPLE_RATE)]


def is_longer_than(path: Path, duration_s: float) -> bool:
    """Return whether audio is longer than `duration_s`.

    Args:
        path: Audio or video file.
        duration_s: Length in seconds.

    Raises:
        AudioError: If the file cannot be read.
    """
    blocks = windows(path, SAMPLE_RATE, BLOCK_S)
    return any(block.start_s >= duration_s for block in blocks)


def is_silent(samples: np.ndarray) -> bool:
    """Return whether audio is below the silence threshold of the encoder.

    Args:
        samples: Waveform, float32 (N,).
    """
    return not np.abs(samples).max(initial=0.0) > SILENCE_THRESHOLD


def save_audio(samples: np.ndarray, path: Path) -> None:
    """Save a waveform as FLAC; the file is created only when it is complete.

    Args:
        samples: Waveform at SAMPLE_RATE, float32 (N,).
        path: Output file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    soundfile.write(partial, np.clip(samples, -1, 1), SAMPLE_RATE, format="FLAC")
    partial.replace(path)


def read_frame(video: Path, time_s: float) -> Image.Image:
    """Return the frame of a video at a time; the last one where the video ends earlier.

    Args:
        video: Video file.
        time_s: Time in seconds.

    Raises:
        ValueError: If the file is not a readable video.
    """
    import av

    try:
        with av.open(str(video), metadata_errors="replace") as container:
            if not container.streams.video:
                raise ValueError(f"{video} has no video stream: give a video")
            container.seek(int(max(0.0, time_s) * 1e6), backward=True)
            last = None
            for frame in container.decode(container.streams.video[0]):
                if last is not None and frame.time is not None and frame.time > time_s:
                    break
                last = frame
            if last is None:
                raise ValueError(f"{video} has no frame at {time_s:g} s")
            image: Image.Image = last.to_image()
            return image
    except av.error.FFmpegError as error:
        raise ValueError(f"{video} cannot be read as a video ({error.strerror})") from error


def save_frame(image: Image.Image, path: Path) -> None:
    """Save an image as JPEG; the file is created only when it is complete.

    Args:
        image: Image to save.
        path: Output file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    image.convert("RGB").save(partial, "JPEG", quality=95)
    partial.replace(path)
