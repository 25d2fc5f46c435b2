"""Short videos, and audio in video containers."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from tests.conftest import RATE, tone


def film(path: Path, image: bool = True, audio: bool = True) -> Path:
    """Write two seconds of video, with a tone if `audio`; without `image` it is an m4a file."""
    with av.open(str(path), "w", format="mp4" if image else "ipod") as file:
        streams = []
        if image:
            stream = file.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            grey = [np.full((64, 64, 3), 10 * i, np.uint8) for i in range(20)]
            streams.append((stream, [av.VideoFrame.from_ndarray(g, format="rgb24") for g in grey]))
        if audio:
            stream = file.add_stream("aac", rate=RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray(tone(440)[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            streams.append((stream, [frame]))
        for stream, frames in streams:
            for frame in [*frames, None]:
                file.mux(stream.encode(frame))
    return path
