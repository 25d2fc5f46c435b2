"""Read any supported audio input as a mono float32 waveform at a given sample rate.

Audio is decoded, mixed and resampled block by block, so its length is not limited by memory.
`read` concatenates the same blocks that `windows` slices: both return bit-identical samples.
Full scale is 1.0; floating-point audio beyond it is never clipped.
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
    """Torch tensor, typed by its methods so that reading a file does not import torch."""

    def detach(self) -> Any: ...


class AudioDecoderLike(Protocol):
    """torchcodec AudioDecoder, the type of decoded audio columns in `datasets` 4 and later."""

    def get_all_samples(self) -> Any: ...


AudioInput = (
    str | os.PathLike[str] | bytes | BinaryIO | np.ndarray | TensorLike | AudioDecoderLike
    | Mapping[str, Any] | tuple[int, Any]
)  # fmt: skip

SILENCE_THRESHOLD = 10 ** (-100 / 20)  # -100 dBFS, below the least significant bit of 16-bit audio


@dataclass(frozen=True, eq=False)
class Window:
    """Window of a waveform.

    Attributes:
        samples: Waveform of shape (n,), float32.
        start_s: Start of the window in seconds.
    """

    samples: np.ndarray
    start_s: float


def read(audio: AudioInput, sample_rate: int, *, sampling_rate: int | None = None) -> np.ndarray:
    """Read audio as a mono waveform.

    Args:
        audio: Path, bytes of an audio file, binary file object (read from its current position,
            which is restored), array or tensor of shape (N,), (channels, N) or (N, channels) with
            the shorter axis as channels, entry of a `datasets` audio column (torchcodec
            AudioDecoder, {"array", "sampling_rate"} or {"path", "bytes"}), or (rate, array)
            tuple. Integers are scaled by their type, so that int16 32767 is just below 1.0.
            64-bit integers, which NumPy makes of lists, have an unknown full scale and raise an
            error.
        sample_rate: Sample rate in Hz of the returned waveform.
        sampling_rate: Sample rate in Hz of a bare array or tensor.

    Returns:
        Waveform of shape (N,), float32, averaged over the channels.

    Raises:
        AudioError: If the audio cannot be read or is silent, or an argument is invalid.

    Warns:
        AudioWarning: If the audio is truncated or damaged; the decodable part is returned.
    """
    return np.concatenate(list(_read_blocks(audio, *_check_rates(sample_rate, sampling_rate))))


def windows(
    audio: AudioInput,
    sample_rate: int,
    window_s: float,
    *,
    sampling_rate: int | None = None,
) -> Iterator[Window]:
    """Read audio window by window, keeping about one window in memory.

    The windows cover the audio exactly; the last one may be shorter and is not padded. Arguments
    are checked at the call, and the audio while it is read: silence and truncation are reported
    after the last window.

    Args:
        audio: Audio in any form that `read` accepts.
        sample_rate: Sample rate in Hz of the returned samples.
        window_s: Window length in seconds.
        sampling_rate: Sample rate in Hz of a bare array or tensor.

    Returns:
        Iterator of windows.

    Raises:
        AudioError: If the audio cannot be read or is silent, or an argument is invalid.

    Warns:
        AudioWarning: If the audio is truncated or damaged; the decodable part is returned.
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
            continue  # concatenating every block would be quadratic in the window length
        buffer = np.concatenate(pending)
        while len(buffer) >= window_n:
            yield Window(buffer[:window_n].copy(), start / sample_rate)
            buffer, start = buffer[window_n:], start + window_n
        pending = [buffer]
    rest = np.concatenate(pending)
    if start == 0 or len(rest):  # otherwise the last window ends with the audio
        yield Window(rest, start / sample_rate)


def _check_rates(sample_rate: Any, sampling_rate: Any) -> tuple[int, int | None]:
    given = None if sampling_rate is None else validate_sample_rate(sampling_rate, "sampling_rate")
    return validate_sample_rate(sample_rate, "sample_rate"), given


def _num_samples(duration_s: Any, name: str, sample_rate: int) -> int:
    """Return the number of samples in a duration, at least 1."""
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
    """Yield the blocks as mono (n,); raise if the audio is empty, silent or not finite."""
    peak, count = 0.0, 0
    for block in source.blocks:
        if not np.isfinite(block).all():
            raise AudioError(
                f"{source.name} has NaN or infinite samples: "
                "give finite ones, or export the audio again."
            )
        # In float64 the result does not depend on the order of the channels.
        waveform = block.mean(axis=1, dtype=np.float64).astype(np.float32)
        peak = max(peak, float(np.abs(waveform).max(initial=0)))
        count += len(waveform)
        yield waveform
    if count == 0:
        raise AudioError(f"{source.name} has no samples: give a file with audio.")
    if peak < SILENCE_THRESHOLD:
        raise AudioError(
            f"{source.name} is silent (the peak of its mono mix is below -100 dBFS): "
            "give audio that is not silent."
        )


def _resample(
    blocks: Iterator[np.ndarray], source: AudioSource, sample_rate: int
) -> Iterator[np.ndarray]:
    if source.sample_rate == sample_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(source.sample_rate, sample_rate, 1, "float32", "HQ")
    # Smaller input chunks for large upsampling factors keep the output chunks small.
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
            f"{source.name} is too short for one sample at {sample_rate} Hz: give a longer clip."
        )
    yield piece
