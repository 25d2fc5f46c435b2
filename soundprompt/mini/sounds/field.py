"""From a dry source to a field recording: distance, room, microphone, noise and codec.

Everything linear is done on spectra, once for the whole recording.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from soundprompt.mini.sounds.dsp import (
    SAMPLE_RATE,
    Signal,
    bandpass,
    decibels,
    highpass,
    log_uniform,
    lowpass,
    noise,
    response,
    seconds,
    wander,
)

Spectrum = NDArray[np.complex64]

# The longest reverberation that is computed, and that of open places (seconds).
TAIL_S = 1.3
OUTDOOR_TAIL_S = 0.25


@dataclass(frozen=True)
class Room:
    """A place: RT60 in seconds (0 outdoors), its damping, and the share of reflected sound."""

    rt60_s: float
    damping: float
    wet: float

    @property
    def tail_s(self) -> float:
        """Length of the computed reverberation in seconds."""
        return min(self.rt60_s, TAIL_S) if self.rt60_s > 0 else OUTDOOR_TAIL_S


def sample_room(rng: np.random.Generator) -> Room:
    """Outdoors, a small dry room, or a live one up to RT60 = 1.5 s."""
    if rng.random() < 0.4:
        return Room(0.0, 0.0, rng.uniform(0.0, 0.1))
    rt60 = log_uniform(rng, 0.1, 1.5)
    return Room(rt60, rng.uniform(0.2, 1.0), decibels(rng.uniform(-22, 0)))


def impulse_response(rng: np.random.Generator, room: Room, far: bool) -> Signal:
    """Direct sound, a few early echoes and a diffuse exponential tail (Moorer 1979).

    A far source keeps its reflections while its direct sound weakens: it is wetter.
    """
    wet = min(1.0, room.wet * (2.5 if far else 1.0) + (0.15 if far else 0.0))
    rt60 = room.rt60_s if room.rt60_s > 0 else OUTDOOR_TAIL_S
    length = seconds(room.tail_s)
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    # ln(1000) = 6.91: the amplitude falls by 60 dB in rt60.
    tail = noise(rng, length) * np.exp(-6.91 * t / rt60)
    # High frequencies die first: half of the tail is a duller, longer-lived one.
    dull = np.convolve(tail, np.full(6, 1 / 6, np.float32), mode="same")
    tail = (1.0 - room.damping) * tail + room.damping * dull
    response = wet * tail / np.float32(np.sqrt(np.sum(tail**2)))
    for _ in range(int(rng.integers(0, 7))):
        delay = seconds(log_uniform(rng, 0.001, 0.08))
        if delay < length:
            response[delay] += wet * rng.uniform(-0.6, 0.6)
    response[0] += 1.0
    return np.asarray(response, np.float32)


def transform_size(n: int, room: Room) -> int:
    """FFT size that holds n samples and the reverberant tail of the room."""
    return int(fft.next_fast_len(n + seconds(room.tail_s), real=True))


def placed(rng: np.random.Generator, dry: Signal, room: Room, far: bool) -> Spectrum:
    """Spectrum of the source in the room; a far one is low-passed by air and obstacles."""
    size = transform_size(len(dry), room)
    spectrum = fft.rfft(dry, size) * fft.rfft(impulse_response(rng, room, far), size)
    if far:
        cutoff, order = log_uniform(rng, 1500, 7000), rng.uniform(0.6, 1.5)
        spectrum *= response(lambda f: lowpass(f, cutoff, order), size)
    return np.asarray(spectrum, np.complex64)


def microphone(rng: np.random.Generator, f: Signal) -> Signal:
    """Magnitude response of microphone, equalizer and codec at the frequencies `f` (Hz)."""
    tilt = rng.normal(0, 0.18)
    gain = ((f + 60.0) / 1000.0) ** tilt * highpass(f, log_uniform(rng, 10, 200), 1)
    # Gentle bumps and dips, smooth over octaves.
    knots = np.geomspace(50, 12_000, 9)
    bumps = np.interp(np.log(f + 1.0), np.log(knots), rng.normal(0, rng.uniform(0.5, 4.0), 9))
    gain = gain * 10.0 ** (bumps / 20.0)
    kind = rng.random()
    if kind < 0.05:
        # A telephone line.
        gain *= bandpass(f, 300, 3400, 4)
    elif kind < 0.28:
        # mp3 and ogg at low bit rates drop the top band with a steep slope.
        gain *= lowpass(f, log_uniform(rng, 4000, 12_000), 12)
    elif kind < 0.45:
        gain *= lowpass(f, log_uniform(rng, 3000, 9000), 1)
    return np.asarray(gain, np.float32)


def background(rng: np.random.Generator, n: int, size: int) -> Spectrum:
    """Spectrum of the noise of the place and the recorder, with wind and hum at times."""
    slope = rng.uniform(-2.0, 0.2)
    white = rng.standard_normal(2 * (size // 2 + 1), dtype=np.float32).view(np.complex64)
    spectrum = white * response(lambda f: ((f + 30.0) / 1000.0) ** slope, size)
    extra = weather(rng, n)
    if extra is not None:
        share = np.linalg.norm(spectrum) / np.sqrt(0.5 * size * n)
        spectrum += np.float32(share) * fft.rfft(extra, size)
    return np.asarray(spectrum, np.complex64)


def weather(rng: np.random.Generator, n: int) -> Signal | None:
    """Wind in the microphone and mains hum (n,), beside a floor of unit RMS; mostly neither."""
    floor = np.zeros(n, np.float32)
    if rng.random() < 0.2:
        top = log_uniform(rng, 60, 300)
        wind = noise(rng, n, lambda f: lowpass(f, top, 1.5))
        wind *= np.exp(0.8 * wander(rng, n, 1.5))
        floor = floor + decibels(rng.uniform(-6, 16)) * wind
    if rng.random() < 0.15:
        t = np.arange(n, dtype=np.float32) / SAMPLE_RATE
        mains = 2 * np.pi * float(rng.choice([50.0, 60.0]))
        for k in range(1, int(rng.integers(2, 7))):
            loud = decibels(rng.uniform(-14, 6)) / k
            floor = floor + loud * np.sin(k * mains * t + rng.uniform(0, 6.3)).astype(np.float32)
    return floor if floor.any() else None


def level(rng: np.random.Generator, x: Signal) -> Signal:
    """`x` at a recording level: mostly near full scale, some low, some clipped; |x| <= 1."""
    peak = float(np.max(np.abs(x))) + 1e-9
    kind = rng.random()
    if kind < 0.18:
        # Overload: the peaks hit the end of the scale, hard or softly.
        driven = x * np.float32(decibels(rng.uniform(1, 14)) / peak)
        hard = np.clip(driven, -1.0, 1.0)
        clipped = hard if rng.random() < 0.6 else np.tanh(driven)
        return np.asarray(clipped * rng.uniform(0.3, 1.0), np.float32)
    top = rng.uniform(-10, -0.1) if kind < 0.8 else rng.uniform(-34, -10)
    return np.asarray(x * np.float32(decibels(top) / peak), np.float32)


def active_span(dry: Signal) -> tuple[int, int]:
    """First and one past the last sample where the source is above -46 dB of its peak."""
    loud = np.flatnonzero(np.abs(dry) > 0.005 * np.max(np.abs(dry)))
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, len(dry))
