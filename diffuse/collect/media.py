"""Cuts: a stretch of a sound track, and a frame of a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from align.audio.files import AudioError
from align.audio.waveform import SILENCE_THRESHOLD, windows

SAMPLE_RATE = 48_000  # CLAP's own; others resample from it
BLOCK_S = 0.25  # how finely a stretch can be cut
VIDEO_EXTENSIONS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".flv", ".m4v")


def read_audio_segment(path: Path, start_s: float, duration_s: float) -> np.ndarray:
    """A stretch of a recording or of a video's sound track: float32 (N,) at SAMPLE_RATE.

    It starts at `start_s` to within a quarter of a second, and is shorter than `duration_s`
    where the recording ends earlier.

    Raises:
        AudioError: it cannot be read, or nothing is to be heard there.
    """
    blocks = []
    for block in windows(path, SAMPLE_RATE, BLOCK_S):
        if block.start_s >= start_s + duration_s:
            break  # the rest is not decoded
        if block.start_s >= start_s - BLOCK_S / 2:
            blocks.append(block.samples)
    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if len(waveform) < SAMPLE_RATE // 10 or is_silent(waveform):
        raise AudioError(f"{path} has no sound from {start_s:g} s on")
    return waveform[: round(duration_s * SAMPLE_RATE)]


def is_longer_than(path: Path, duration_s: float) -> bool:
    """Whether a recording goes on beyond `duration_s`.

    Raises:
        AudioError: it cannot be read.
    """
    found = windows(path, SAMPLE_RATE, BLOCK_S)
    return any(block.start_s >= duration_s for block in found)


def is_silent(samples: np.ndarray) -> bool:
    """Whether a stretch holds nothing that an encoder would accept as sound."""
    return not np.abs(samples).max(initial=0.0) > SILENCE_THRESHOLD


def save_audio(samples: np.ndarray, path: Path) -> None:
    """Writes samples at SAMPLE_RATE as FLAC; the file appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    soundfile.write(partial, np.clip(samples, -1, 1), SAMPLE_RATE, format="FLAC")
    partial.replace(path)


def read_frame(video: Path, time_s: float) -> Image.Image:
    """The frame that a video shows at a moment; its last one where it ends earlier.

    Raises:
        ValueError: the file is no video that can be read.
    """
    import av

    try:
        with av.open(str(video), metadata_errors="replace") as container:
            if not container.streams.video:
                raise ValueError(f"{video} has no pictures: give a video")
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
        raise ValueError(f"{video} is not a video that can be read ({error.strerror})") from error


def save_frame(image: Image.Image, path: Path) -> None:
    """Writes a picture as JPEG; the file appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    image.convert("RGB").save(partial, "JPEG", quality=95)
    partial.replace(path)
