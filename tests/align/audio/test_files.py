"""What is damaged or cut short is read_with_warnings about, and what is whole is not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.align.audio.test_waveform import RATE, pitch, read_with_warnings, tone


def noisy(duration_s: float, rate: int = RATE) -> np.ndarray:
    samples = tone(rate, duration_s)
    return samples + np.random.default_rng(0).normal(0, 0.05, len(samples)).astype(np.float32)


def ogg(subtype: str, duration_s: float, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noisy(duration_s, rate), rate, format="OGG", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("subtype", "rate", "duration_s", "zeros"),
    [
        ("VORBIS", 16_000, 2, 2000),
        ("VORBIS", 16_000, 2, 60),
        ("OPUS", 48_000, 2, 60),
        (
            "VORBIS",
            16_000,
            20,
            2000,
        ),  # libsndfile logs the damage only after the whole file was read
        ("OPUS", 16_000, 20, 60),
    ],
)
def test_read_damaged_ogg_warns_once(subtype: str, rate: int, duration_s: float, zeros: int):
    whole = ogg(subtype, duration_s, rate)
    waveform, warning_count = read_with_warnings(whole)
    assert (len(waveform), warning_count) == (duration_s * RATE, 0)
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes(zeros) + whole[middle + zeros :]
    waveform, warning_count = read_with_warnings(damaged)
    assert 0 < len(waveform) <= duration_s * RATE
    assert warning_count == 1


def test_read_real_clips_without_warning(esc10: Path):
    paths = sorted((esc10 / "audio").iterdir())[::8]
    assert len(paths) > 10
    assert [path.name for path in paths if read_with_warnings(path)[1]] == []


def mp2(rate: int, layout: str) -> bytes:
    import av

    file, channels = io.BytesIO(), 1 if layout == "mono" else 2
    with av.open(file, "w", format="mp2") as out:
        stream = out.add_stream("mp2", rate=rate)
        stream.layout = layout
        samples = (20_000 * tone(rate)).astype(np.int16).repeat(channels)[None]
        step = 1152 * channels
        for start in range(0, samples.shape[1] - step + 1, step):
            piece = np.ascontiguousarray(samples[:, start : start + step])
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate, start // channels
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_read_complete_mp2_without_warning(rate: int, layout: str):
    waveform, warning_count = read_with_warnings(mp2(rate, layout))
    assert warning_count == 0
    assert 0.9 * RATE < len(waveform) <= RATE
    assert abs(pitch(waveform, RATE) - 440) < 3


class Pipe(io.RawIOBase):
    """Stream that cannot seek, so that no duration and no tags are written."""

    def __init__(self) -> None:
        self.held = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.held += bytes(data)
        return len(data)


def video_file(
    container: str,
    codec: str,
    *,
    starts_s: float = 0.0,
    video_s: float = 2.0,
    tag: str | None = None,
    piped: bool = False,
) -> bytes:
    """Video with two seconds of audio."""
    import av

    file, rate = Pipe() if piped else io.BytesIO(), 48_000
    with av.open(file, "w", format=container) as out:
        video = out.add_stream("libvpx" if container == "webm" else "mpeg4", rate=10)
        video.width = video.height = 16
        video.pix_fmt = "yuv420p"
        sound = out.add_stream(codec, rate=rate)
        sound.layout = "mono"
        resampler = av.AudioResampler(format=sound.codec_context.format.name, frame_size=960)
        if codec == "aac":
            resampler = av.AudioResampler(format="fltp", frame_size=1024)
        for tenth in range(round(10 * max(2.0, video_s))):
            if tenth < 10 * video_s:
                pixels = np.full((16, 16, 3), tenth, np.uint8)
                out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            if tenth < 20:
                piece = noisy(2.0, rate)[None, tenth * 4800 : (tenth + 1) * 4800]
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, tenth * 4800 + round(starts_s * rate)
                for fitting in resampler.resample(frame):
                    out.mux(sound.encode(fitting))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    encoded = file.held if isinstance(file, Pipe) else file.getvalue()
    if tag is not None:
        assert b"00:00:02.0" in encoded
        encoded = encoded.replace(b"00:00:02.0", tag.encode())
    return encoded


VIDEO_FORMATS = [("webm", "libopus"), ("matroska", "libopus"), ("matroska", "aac")]


@pytest.mark.parametrize(("container", "codec"), VIDEO_FORMATS)
def test_read_truncated_video_warns_once(container: str, codec: str):
    whole = video_file(container, codec)
    waveform, warning_count = read_with_warnings(whole)
    assert len(waveform) == pytest.approx(2 * RATE, rel=0.02)
    assert warning_count == 0
    half, warning_count = read_with_warnings(whole[: len(whole) // 2])
    assert 0.3 * RATE < len(half) < 1.7 * RATE
    assert warning_count == 1


@pytest.mark.parametrize(
    "options",
    [
        {"starts_s": 1.0},  # the tag is the end time, not the duration
        {"video_s": 4.0},
        {"tag": "forty-two!"},
    ],
)
def test_read_complete_video_without_warning(options: dict):
    waveform, warning_count = read_with_warnings(video_file("matroska", "aac", **options))
    assert len(waveform) == pytest.approx(2 * RATE, rel=0.02)
    assert warning_count == 0


def test_read_ignores_estimated_duration():
    import av

    piped = video_file("matroska", "libmp3lame", piped=True)
    with av.open(io.BytesIO(piped)) as container:
        guess = container.streams.audio[0]
        assert float(guess.duration * guess.time_base) > 2.1
    waveform, warning_count = read_with_warnings(piped)
    assert len(waveform) == pytest.approx(2 * RATE, rel=0.02)
    assert warning_count == 0
