"""Read audio of every format and shape, whole and in windows; errors of invalid input."""

from __future__ import annotations

import io
import itertools
import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from align.audio.files import AudioError, AudioWarning
from align.audio.waveform import read, windows

RATE = 16_000


def tone(rate: int, duration_s: float = 1.0, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * duration_s)) / rate)).astype(
        np.float32
    )


def pitch(waveform: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * rate / len(waveform))


def encode_av(path: Path, container: str, codec: str, rate: int = 48_000) -> Path:
    import av

    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = "mono"
        samples = tone(rate)
        step = 960
        for start in range(0, len(samples) - step + 1, step):
            frame = av.AudioFrame.from_ndarray(
                samples[None, start : start + step], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = rate, start
            out.mux(stream.encode(_in_format(frame, stream)))
        out.mux(stream.encode(None))
    return path


def _in_format(frame, stream):
    import av

    kind = stream.codec_context.format
    if kind is None or kind.name == frame.format.name:
        return frame
    [converted] = av.AudioResampler(format=kind.name).resample(frame)
    return converted


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(44_100), 44_100)
    return path


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("a.wav", 44_100, "PCM_16"),
        ("a.wav", 8_000, "PCM_U8"),
        ("a.wav", 192_000, "PCM_24"),
        ("a.wav", 48_000, "DOUBLE"),
        ("a.flac", 22_050, "PCM_24"),
        ("a.ogg", 44_100, "VORBIS"),
        ("a.opus", 48_000, "OPUS"),
        ("a.mp3", 44_100, "MPEG_LAYER_III"),
        ("a.aiff", 32_000, "PCM_16"),
        ("a.caf", 16_000, "FLOAT"),
        ("a.au", 16_000, "PCM_16"),
    ],
)
def test_read_libsndfile_formats(tmp_path: Path, name: str, rate: int, subtype: str):
    path = tmp_path / name
    kind = "OGG" if name.endswith("opus") else None
    soundfile.write(path, tone(rate), rate, subtype=subtype, format=kind)
    waveform = read(path, RATE)
    assert waveform.dtype == np.float32
    assert abs(len(waveform) - RATE) < 0.1 * RATE
    assert abs(pitch(waveform, RATE) - 440) < 3
    assert 0.4 < np.abs(waveform).max() < 0.6


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [
        ("a.m4a", "ipod", "aac"),
        ("a.aac", "adts", "aac"),
        ("a.webm", "webm", "libopus"),
        ("a.mp4", "mp4", "aac"),
    ],
)
def test_read_pyav_formats(tmp_path: Path, name: str, container: str, codec: str):
    path = encode_av(tmp_path / name, container, codec)
    waveform = read(path, RATE)
    assert abs(len(waveform) - RATE) < 0.1 * RATE
    assert abs(pitch(waveform[1000:-1000], RATE) - 440) < 5
    assert np.array_equal(waveform, read(path.read_bytes(), RATE))


def test_read_input_types_are_equivalent(wav: Path):
    expected = read(wav, RATE)
    samples, rate = soundfile.read(wav, dtype="float32")
    with open(wav, "rb") as file:
        from_file = read(file, RATE)
        assert not file.closed
    whole16 = soundfile.read(wav, dtype="int16")[0]
    ways = {
        "str": read(str(wav), RATE),
        "bytes": read(wav.read_bytes(), RATE),
        "file": from_file,
        "array": read(samples, RATE, sampling_rate=rate),
        "tensor": read(torch.from_numpy(samples), RATE, sampling_rate=rate),
        "dict": read({"array": samples, "sampling_rate": rate}, RATE),
        "bytes dict": read({"path": None, "bytes": wav.read_bytes()}, RATE),
        "path dict": read({"path": str(wav), "bytes": None}, RATE),
        "gradio": read((rate, whole16), RATE),
        "channels first": read(np.stack([samples] * 2), RATE, sampling_rate=rate),
        "channels last": read(np.stack([samples] * 8, 1), RATE, sampling_rate=rate),
    }
    for way, waveform in ways.items():
        assert np.array_equal(waveform, expected), way


def test_read_averages_channels_without_clipping(tmp_path: Path):
    left = 3 * tone(RATE)
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.stack([left, np.zeros_like(left)], 1), RATE, subtype="FLOAT")
    waveform = read(path, RATE)
    assert np.allclose(waveform, left / 2, atol=1e-6)
    soundfile.write(path, left, RATE, subtype="FLOAT")
    assert read(path, RATE).max() == pytest.approx(1.5, abs=1e-3)
    soundfile.write(path, np.stack([tone(RATE)] * 8, 1), RATE)
    assert np.allclose(read(path, RATE), tone(RATE), atol=1e-3)


def test_windows_cover_all_samples(wav: Path):
    whole = read(wav, RATE)
    found = list(windows(wav, RATE, 0.3))
    step = round(0.3 * RATE)
    for i, window in enumerate(found):
        start = i * step
        assert window.start_s == start / RATE
        assert np.array_equal(window.samples, whole[start : start + round(0.3 * RATE)])
    last = found[-1]
    assert round(last.start_s * RATE) + len(last.samples) == len(whole)
    assert all(len(w.samples) == round(0.3 * RATE) for w in found[:-1])


def test_windows_memory_is_bounded():
    hours = np.broadcast_to(tone(8_000, 1.0), (3 * 3600, 8_000)).reshape(-1)
    stream = windows(hours, RATE, 10.0, sampling_rate=8_000)
    tracemalloc.start()
    first = list(itertools.islice(stream, 30))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [w.start_s for w in first] == [10.0 * i for i in range(30)]
    kept = sum(w.samples.nbytes for w in first)
    assert peak < kept + 16 * 2**20


def _bad(tmp_path: Path) -> dict[str, tuple[object, str]]:
    def wave(name: str, samples: np.ndarray, **options: str) -> Path:
        soundfile.write(tmp_path / name, samples, RATE, **options)
        return tmp_path / name

    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not audio\n" * 50)
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    hole = tone(RATE)
    hole[100] = np.nan
    return {
        "missing": (tmp_path / "none.wav", "does not exist"),
        "folder": (tmp_path, "folder"),
        "empty": (tmp_path / "empty.wav", "empty"),
        "text": (tmp_path / "text.wav", "not a readable audio file"),
        "noise": (tmp_path / "noise.mp3", "not a readable audio file|cannot be decoded|no samples"),
        "no samples": (wave("nothing.wav", np.zeros(0, np.float32)), "no samples"),
        "silent": (wave("silent.wav", np.zeros(RATE, np.float32)), "silent"),
        "nan": (wave("nan.wav", hole, subtype="FLOAT"), "NaN"),
        "none": (None, "is not audio"),
        "number": (3, "is not audio"),
        "no rate": (tone(RATE), "sampling_rate"),
        "bytes of a named file": (
            {"path": "a/clip_17.flac", "bytes": b"I am a text"},
            "clip_17.flac",
        ),
        "empty dict": ({"path": None, "bytes": None}, "contains no audio"),
        "square": ((RATE, np.ones((4, 4))), "channels"),
        "complex": ((RATE, np.ones(9) * 1j), "samples"),
        "words": ((RATE, np.array(["a"] * 9)), "samples"),
        "kilohertz": ((44, tone(RATE)), "Hz"),
        "empty array": ((RATE, np.zeros(0)), "empty"),
        "text mode": (io.StringIO("abc"), "'rb'"),
    }


def test_read_invalid_input_raises(tmp_path: Path):
    for name, (audio, message) in _bad(tmp_path).items():
        with pytest.raises(AudioError, match=message) as caught:
            read(audio, RATE)
        text = str(caught.value)
        assert "\n" not in text and len(text) < 300, name


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_read_without_permission_raises(wav: Path):
    wav.chmod(0)
    with pytest.raises(AudioError, match="is not readable"):
        read(wav, RATE)


def test_read_video_without_audio_raises(tmp_path: Path):
    import av

    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(AudioError, match="no audio track"):
        read(path, RATE)


def read_with_warnings(audio: object) -> tuple[np.ndarray, int]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waveform = read(audio, RATE)  # type: ignore[arg-type]
    return waveform, sum(issubclass(w.category, AudioWarning) for w in caught)


KINDS = ["a.wav", "a.w64", "a.rf64", "a.aiff", "a.au", "a.caf", "a.flac", "a.ogg", "a.mp3"]


@pytest.mark.parametrize("name", KINDS)
def test_read_truncated_file_warns_once(tmp_path: Path, name: str):
    path = tmp_path / name
    grain = np.random.default_rng(0).normal(0, 0.05, 20 * RATE)
    soundfile.write(path, tone(RATE, 20.0) + grain, RATE)
    whole, warning_count = read_with_warnings(path)
    assert (len(whole), warning_count) == (20 * RATE, 0)
    half, warning_count = read_with_warnings(path.read_bytes()[: path.stat().st_size // 2])
    assert 5 * RATE < len(half) < 15 * RATE
    assert abs(pitch(half, RATE) - 440) < 3
    assert warning_count == 1


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("adts", "aac")])
def test_read_truncated_audio_track_warns_once(tmp_path: Path, container: str, codec: str):
    whole = encode_av(tmp_path / "a", container, codec).read_bytes()
    assert read_with_warnings(whole)[1] == 0
    half, warning_count = read_with_warnings(whole[: len(whole) // 2])
    assert 0.3 * RATE < len(half) < 0.7 * RATE
    assert warning_count == 1


def test_read_continues_after_damage(tmp_path: Path):
    encoded = bytearray(encode_av(tmp_path / "a.aac", "adts", "aac").read_bytes())
    middle = len(encoded) // 2
    encoded[middle : middle + 60] = b"\x55" * 60
    waveform, warning_count = read_with_warnings(bytes(encoded))
    assert len(waveform) > 0.9 * RATE
    assert warning_count == 1


def test_read_file_without_length_header(tmp_path: Path):
    """WAV and FLAC without a length, and an MP3 with small first frames."""
    wav, flac, mp3 = tmp_path / "a.wav", tmp_path / "a.flac", tmp_path / "a.mp3"
    soundfile.write(wav, tone(RATE), RATE)
    soundfile.write(flac, tone(RATE), RATE)
    grain = np.random.default_rng(0).normal(0, 0.1, 4 * RATE) * np.repeat([1e-3, 1], 2 * RATE)
    soundfile.write(mp3, grain, RATE)
    streamed = bytearray(wav.read_bytes())
    streamed[4:8] = streamed[40:44] = b"\xff" * 4
    assert [
        len(read_with_warnings(bytes(streamed))[0]),
        read_with_warnings(bytes(streamed))[1],
    ] == [RATE, 0]
    streamed = bytearray(flac.read_bytes())
    streamed[21] &= 0xF0
    streamed[22:26] = bytes(4)
    assert [
        len(read_with_warnings(bytes(streamed))[0]),
        read_with_warnings(bytes(streamed))[1],
    ] == [RATE, 0]
    tag = b"ID3\x03\x00\x00\x00\x00\x02\x00" + bytes(256)  # before the first frame
    for start in (b"", tag):
        unstated = start + mp3.read_bytes().replace(b"Xing", b"....").replace(b"Info", b"....")
        assert len(read(unstated, RATE)) == pytest.approx(4 * RATE, rel=0.05)


def test_read_restores_file_position(wav: Path):
    file = io.BytesIO(b"before" + wav.read_bytes())
    file.seek(6)
    first = read(file, RATE)
    assert (file.tell(), file.closed) == (6, False)
    assert np.array_equal(first, read(file, RATE))
    assert np.array_equal(first, read(wav, RATE))


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {name}\n",
    ],
)
def test_read_playlist_raises(tmp_path: Path, monkeypatch, text: str):
    other = encode_av(tmp_path / "other.aac", "adts", "aac")
    monkeypatch.chdir(tmp_path)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(text.format(path=other, name=other.name))
    for audio in (playlist, playlist.read_bytes()):
        with pytest.raises(AudioError, match="not a readable audio file"):
            read(audio, RATE)


def test_read_tag_in_legacy_encoding(tmp_path: Path):
    import av

    path = encode_av(tmp_path / "a.mka", "matroska", "libopus")
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mka"), "w", "matroska") as out:
        out.metadata["artist"] = "QQQQ"
        copy = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    tagged = (tmp_path / "b.mka").read_bytes()
    assert b"QQQQ" in tagged
    assert len(read(tagged.replace(b"QQQQ", b"Q\xe9QQ"), RATE)) == pytest.approx(RATE, rel=0.05)


def test_read_invalid_arguments_raise(wav: Path):
    for wrong in (0, -1, 44, 44.1, "16000", True, 10**9):
        with pytest.raises(AudioError, match="sample_rate"):
            read(wav, wrong)  # type: ignore[arg-type]
    for wrong_s in (0, -1, float("nan"), "1"):
        with pytest.raises(AudioError, match="window_s"):
            next(windows(wav, RATE, wrong_s))  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="leave sampling_rate out"):
        read(wav, RATE, sampling_rate=8_000)


def test_read_path_and_bytes_are_equivalent(esc10: Path):
    for path in sorted((esc10 / "audio").iterdir())[:6]:
        waveform = read(path, 24_000)
        assert len(waveform) == pytest.approx(5 * 24_000, abs=50)
        assert np.array_equal(waveform, read(path.read_bytes(), 24_000))
