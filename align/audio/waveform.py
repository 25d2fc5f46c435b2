"""Everything a recording can come as, read as one waveform: mono, float32, at a stated rate.

A recording is decoded, mixed and resampled block by block, so its length is not limited by memory,
and `read` is nothing but the blocks of the stream joined: both give the same samples, bit for bit.
Full scale is 1.0. Floating point recordings that are louder are kept as they are, never clipped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import soxr

from align.audio.decode import BLOCK, AudioSource, is_number, open_source, validate_sample_rate
from align.audio.files import AudioError


class TensorLike(Protocol):
    """A torch tensor, known by its methods so that reading a file does not import torch."""

    def detach(self) -> Any: ...


class AudioDecoderLike(Protocol):
    """A torchcodec AudioDecoder, which the audio columns of `datasets` 4 and later hold."""

    def get_all_samples(self) -> Any: ...


AudioInput = (
    str | os.PathLike[str] | bytes | BinaryIO | np.ndarray | TensorLike | AudioDecoderLike
    | Mapping[str, Any] | tuple[int, Any]
)  # fmt: skip

SILENCE_THRESHOLD = 10 ** (-100 / 20)  # -100 dBFS, below the last bit of a 16-bit recording


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a waveform: `samples` is float32 (n,), `start_s` its place in seconds."""

    samples: np.ndarray
    start_s: float


def read(audio: AudioInput, sample_rate: int, *, sampling_rate: int | None = None) -> np.ndarray:
    """Read a whole recording as a mono waveform.

    Args:
        recording: a path, the bytes of a sound file, a binary file object (read from where it
            stands, left there and open), an array or tensor of shape (N,), (channels, N) or
            (N, channels) with the shorter axis taken as channels, a `datasets` audio column entry
            (a torchcodec AudioDecoder, {"array", "sampling_rate"} or {"path", "bytes"}), or a
            pair (rate, array). Integers are scaled by their type, so that int16 32767 is just
            under 1.0; 64-bit ones, which a list of integers becomes, are refused: they are
            samples of a smaller type, and do not tell which.
        sample_rate: the rate in Hz of the waveform that is returned.
        sampling_rate: the rate in Hz of a bare array or tensor, which cannot state its own.

    Returns:
        float32 (N,), the mean over the channels.

    Raises:
        AudioError: nothing can be read or heard, or an argument makes no sense.

    Warns:
        AudioWarning: the recording is cut short or damaged; what could be decoded is returned.
    """
    return np.concatenate(list(_read_blocks(audio, *_check_rates(sample_rate, sampling_rate))))


def windows(
    audio: AudioInput,
    sample_rate: int,
    window_s: float,
    *,
    sampling_rate: int | None = None,
) -> Iterator[Window]:
    """Read a recording window by window, holding only about one window in memory.

    The windows cover the recording exactly: the last one ends with it, may be shorter than the
    others, and is not padded. Arguments are checked at the call, the recording while it is read:
    that it is silent, or cut short, shows after its last window.

    Args:
        recording, sample_rate, sampling_rate: as for `read`.
        window_s: the length of a window in seconds.

    Raises, warns: as `read`.
    """
    rates = _check_rates(sample_rate, sampling_rate)
    window_n = _num_samples(window_s, "window_s", rates[0])
    return _windows(_read_blocks(audio, *rates), rates[0], window_n)


def _windows(blocks: Iterator[np.ndarray], sample_rate: int, window_n: int) -> Iterator[Window]:
    pending: list[np.ndarray] = []
    start = 0
    for block in blocks:
        pending.append(block)
        if sum(map(len, pending)) < window_n:
            continue  # joined only when a window is full, or long windows would cost their square
        buffer = np.concatenate(pending)
        while len(buffer) >= window_n:
            yield Window(buffer[:window_n].copy(), start / sample_rate)
            buffer, start = buffer[window_n:], start + window_n
        pending = [buffer]
    rest = np.concatenate(pending)
    if start == 0 or len(rest):  # else the last window has ended with the recording
        yield Window(rest, start / sample_rate)


def _check_rates(sample_rate: Any, sampling_rate: Any) -> tuple[int, int | None]:
    given = None if sampling_rate is None else validate_sample_rate(sampling_rate, "sampling_rate")
    return validate_sample_rate(sample_rate, "sample_rate"), given


def _num_samples(duration_s: Any, name: str, sample_rate: int) -> int:
    """Samples in a duration."""
    if not is_number(duration_s) or not 0 < duration_s < float("inf"):
        raise AudioError(f"{name}={duration_s!r} is not a duration: give seconds above 0.")
    return max(1, round(float(duration_s) * sample_rate))


def _read_blocks(
    audio: AudioInput, sample_rate: int, sampling_rate: int | None
) -> Iterator[np.ndarray]:
    with contextlib.ExitStack() as stack:
        source = open_source(audio, sampling_rate, stack)
        yield from _resample(_mix_to_mono(source), source, sample_rate)


def _mix_to_mono(source: AudioSource) -> Iterator[np.ndarray]:
    """The blocks as mono (n,), with a recording that cannot be heard refused."""
    peak, count = 0.0, 0
    for block in source.blocks:
        if not np.isfinite(block).all():
            raise AudioError(
                f"{source.name} has NaN or infinite samples: "
                "give finite ones, or export the recording again."
            )
        # In float64 the sum does not depend on the order in which the channels are added.
        waveform = block.mean(axis=1, dtype=np.float64).astype(np.float32)
        peak = max(peak, float(np.abs(waveform).max(initial=0)))
        count += len(waveform)
        yield waveform
    if count == 0:
        raise AudioError(f"{source.name} has no samples: give a recording with sound in it.")
    if peak < SILENCE_THRESHOLD:
        raise AudioError(
            f"{source.name} is silent (mixed to mono, its peak is below -100 dBFS): "
            "give a recording with sound in it."
        )


def _resample(
    blocks: Iterator[np.ndarray], source: AudioSource, sample_rate: int
) -> Iterator[np.ndarray]:
    if source.sample_rate == sample_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(source.sample_rate, sample_rate, 1, "float32", "HQ")
    # Small steps where the rate rises steeply, so that what comes out stays small too.
    step = max(1, min(BLOCK, BLOCK * source.sample_rate // sample_rate))
    count = 0
    for block in blocks:
        for start in range(0, len(block), step):
            piece = resampler.resample_chunk(block[start : start + step])
            count += len(piece)
            yield piece
    piece = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    if count + len(piece) == 0:
        raise AudioError(
            f"{source.name} is too short to make one sample at {sample_rate} Hz: "
            "give a longer recording."
        )
    yield piece
