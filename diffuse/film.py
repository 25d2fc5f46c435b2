"""Films: frames, and their sound, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

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
