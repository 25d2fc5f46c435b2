"""Building blocks of the procedural sounds: noise, filters, pulses, grains.

Signals are float32 arrays of shape (samples,) at SAMPLE_RATE; times are in
seconds and frequencies in hertz unless a name says otherwise. Filters are
magnitude responses applied in the frequency domain, which costs two FFTs
whatever the number of resonances and poles in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

SAMPLE_RATE = 24_000

Signal = NDArray[np.float32]
Gain = Callable[[Signal], Signal]


def seconds(duration_s: float) -> int:
    """Number of samples in `duration_s` seconds, at least one."""
    return max(1, round(duration_s * SAMPLE_RATE))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A random number between `low` and `high` (both > 0), uniform in the logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def decibels(level_db: float) -> float:
    """Amplitude factor of a level in dB."""
    return float(10.0 ** (level_db / 20.0))


def rms(x: Signal) -> float:
    """Root mean square of a signal, never quite zero so that it can divide."""
    return float(np.sqrt(np.mean(np.square(x)) + 1e-20))


def peak_normalized(x: Signal) -> Signal:
    """`x` scaled to a largest magnitude of one; a silent signal stays silent."""
    return (x / max(float(np.max(np.abs(x))), 1e-9)).astype(np.float32)


def frequencies(size: int) -> Signal:
    """Frequencies (size // 2 + 1,) in Hz of the bins of a real FFT of `size` samples."""
    return np.asarray(fft.rfftfreq(size, 1.0 / SAMPLE_RATE), np.float32)


def response(gain: Gain, size: int) -> Signal:
    """Values (size // 2 + 1,) of `gain` at the bins of a real FFT of `size` samples.

    Every response here is smooth over 3 Hz, so it is evaluated that far apart and
    interpolated: for five seconds of sound this saves nine tenths of the powers.
    """
    bins = size // 2 + 1
    step = round(3.0 * size / SAMPLE_RATE)
    if step < 2:
        return gain(frequencies(size))
    coarse = gain(np.arange(0, bins + step, step, dtype=np.float32) * (SAMPLE_RATE / size))
    weight = np.arange(step, dtype=np.float32) / step
    fine = coarse[:-1, None] + (coarse[1:] - coarse[:-1])[:, None] * weight
    return np.asarray(fine.reshape(-1)[:bins], np.float32)


def shape(x: Signal, gain: Gain) -> Signal:
    """`x` filtered by the magnitude response `gain` (zero phase, same length)."""
    size = fft.next_fast_len(len(x) + 256, real=True)
    spectrum = fft.rfft(x, size) * response(gain, size)
    return np.asarray(fft.irfft(spectrum, size)[: len(x)], np.float32)


def noise(rng: np.random.Generator, n: int, gain: Gain | None = None) -> Signal:
    """Gaussian noise (n,) with magnitude response `gain`, scaled to unit RMS."""
    if gain is None:
        return rng.standard_normal(n, dtype=np.float32)
    size = fft.next_fast_len(n, real=True)
    # Gaussian noise has a Gaussian spectrum: sampling it there saves an FFT.
    white = rng.standard_normal(2 * (size // 2 + 1), dtype=np.float32).view(np.complex64)
    spectrum = white * response(gain, size)
    x = fft.irfft(spectrum, size)[:n]
    return np.asarray(x / rms(x), np.float32)


def lowpass(f: Signal, cutoff: float, order: float = 2) -> Signal:
    """Butterworth low-pass magnitude at the frequencies `f`."""
    return np.asarray(1.0 / np.sqrt(1.0 + (f / cutoff) ** (2 * order)), dtype=np.float32)


def highpass(f: Signal, cutoff: float, order: float = 2) -> Signal:
    """Butterworth high-pass magnitude at the frequencies `f`."""
    ratio = (f / cutoff) ** (2 * order)
    return np.asarray(np.sqrt(ratio / (1.0 + ratio)), dtype=np.float32)


def bandpass(f: Signal, low: float, high: float, order: float = 2) -> Signal:
    """Product of a high-pass at `low` and a low-pass at `high`."""
    return highpass(f, low, order) * lowpass(f, high, order)


def resonances(f: Signal, centers: ArrayLike, widths: ArrayLike, gains: ArrayLike) -> Signal:
    """Sum of resonance curves: `gains` at `centers`, -3 dB at half of `widths` away (Hz)."""
    total = np.zeros_like(f)
    triples = zip(np.atleast_1d(centers), np.atleast_1d(widths), np.atleast_1d(gains), strict=True)
    for center, width, gain in triples:
        total += np.float32(gain) / np.sqrt(1.0 + ((f - center) / (0.5 * width)) ** 2)
    return total


def wander(rng: np.random.Generator, n: int, rate_hz: float) -> Signal:
    """A smooth random curve (n,), about zero mean and unit deviation, turning at `rate_hz`."""
    hop = max(1, int(SAMPLE_RATE / rate_hz))
    first = int(rng.integers(hop))
    values = rng.standard_normal((n + first) // hop + 2, dtype=np.float32)
    fraction = np.arange(hop, dtype=np.float32) / hop
    weight = fraction * fraction * (3.0 - 2.0 * fraction)
    pieces = values[:-1, None] + (values[1:] - values[:-1])[:, None] * weight
    return np.asarray(pieces.reshape(-1)[first : first + n], np.float32)


def curve(n: int, times: Sequence[float], values: Sequence[float]) -> Signal:
    """Piecewise linear curve (n,) through `values` at `times`, given as fractions of the whole."""
    return np.asarray(np.interp(np.linspace(0.0, 1.0, n), list(times), list(values)), np.float32)


def pulses(f0: Signal, brightness: Signal | float, phase0: float = 0.0) -> Signal:
    """Band-limited pulse train (n,) that follows the pitch curve `f0` in Hz.

    The harmonics fall by 1/e every `brightness` Hz: r = exp(-f0 / brightness) in
    the closed form of sum r^k cos(k phase) (Moorer, The Synthesis of Complex Audio
    Spectra by Means of Discrete Summation Formulas, 1976).
    """
    cycles = np.cumsum(f0, dtype=np.float64) / SAMPLE_RATE
    # Whole cycles are dropped in double precision, then the cosine is cheap.
    phase = (cycles - np.floor(cycles)).astype(np.float32) * np.float32(2 * np.pi)
    cosine = np.cos(phase + np.float32(phase0))
    ratio = np.exp(-f0 / np.asarray(brightness, dtype=np.float32))
    train = (ratio * cosine - ratio**2) / (1.0 - 2.0 * ratio * cosine + ratio**2)
    # Unit power whatever the ratio: the sum of squares of the harmonics is known.
    return np.asarray(train * np.sqrt(2.0 * (1.0 - ratio**2) / (ratio**2 + 1e-6)), np.float32)


def scatter(grains: Signal, starts: NDArray[np.int64], n: int) -> Signal:
    """Sum (n,) of the `grains` (E, L), each beginning at its sample in `starts` (E,)."""
    index = starts[:, None] + np.arange(grains.shape[1])
    inside = (index >= 0) & (index < n)
    total = np.bincount(index[inside], weights=grains[inside], minlength=n)
    return np.asarray(total[:n], np.float32)


def damped(frequency: ArrayLike, decay_s: ArrayLike, length: int, phase: ArrayLike = 0.0) -> Signal:
    """Damped sines (E, length): modes of struck bodies, `decay_s` to fall by 1/e."""
    t = np.arange(length, dtype=np.float32) / np.float32(SAMPLE_RATE)
    omega = np.float32(2 * np.pi) * np.atleast_1d(np.asarray(frequency, np.float32))[:, None]
    decay = np.atleast_1d(np.asarray(decay_s, np.float32))[:, None]
    offset = np.atleast_1d(np.asarray(phase, np.float32))[:, None]
    return np.asarray(np.sin(omega * t + offset) * np.exp(-t / decay), np.float32)


def add_at(track: Signal, event: Signal, start: int) -> None:
    """Add `event` to `track` in place from sample `start`, cut off at both ends."""
    first, last = max(start, 0), min(start + len(event), len(track))
    if last > first:
        track[first:last] += event[first - start : last - start]


def swell(n: int, attack: float, release: float, power: float = 1.0) -> Signal:
    """Envelope (n,) with a raised-cosine attack and release, given as fractions of the whole."""
    t = np.linspace(0.0, 1.0, n, dtype=np.float32)
    rise = np.clip(t / max(attack, 1e-4), 0.0, 1.0)
    fall = np.clip((1.0 - t) / max(release, 1e-4), 0.0, 1.0)
    return np.asarray((np.sin(0.5 * np.pi * np.minimum(rise, fall)) ** 2) ** power, np.float32)
