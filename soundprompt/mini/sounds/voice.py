"""Voices by the source-filter model (Fant, Acoustic Theory of Speech Production, 1960).

A pulse train models the glottis, or the syrinx of a bird; breath noise is
gated by it; resonances stand for the vocal tract. Dogs, babies, roosters and
sneezing people all speak through it with their own pitches and tracts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from soundprompt.mini.sounds.dsp import (
    SAMPLE_RATE,
    Signal,
    log_uniform,
    lowpass,
    noise,
    pulses,
    resonances,
    shape,
    wander,
)


@dataclass(frozen=True)
class Tract:
    """Resonances of a vocal tract: centers and widths in Hz, gains as amplitudes."""

    centers: tuple[float, ...]
    widths: tuple[float, ...]
    gains: tuple[float, ...]
    floor: float = 0.02
    top: float = 9000.0

    def gain(self, f: Signal) -> Signal:
        """Magnitude response at `f`: resonances over a floor, rolled off above `top`."""
        body = self.floor + resonances(f, self.centers, self.widths, self.gains)
        return np.asarray(body * lowpass(f, self.top), np.float32)

    def scaled(self, ratio: float) -> Tract:
        """The same tract with every resonance moved by `ratio` (a more open or closed mouth)."""
        moved = tuple(c * ratio for c in self.centers)
        return replace(self, centers=moved)


@dataclass(frozen=True)
class Throat:
    """How a source vibrates: unitless shares, `brightness` in Hz (see dsp.pulses)."""

    brightness: float = 1500.0
    jitter: float = 0.01
    roughness: float = 0.0
    breath: float = 0.1
    subharmonic: float = 0.0


def sample_tract(
    rng: np.random.Generator, length_m: float, count: int = 4, spread: float = 0.15
) -> Tract:
    """Tract of a tube `length_m` closed at one end: odd quarter-wave resonances, perturbed.

    F_k = (2 k - 1) c / (4 L), c = 350 m/s in warm moist air (Fant 1960).
    """
    order = np.arange(1, count + 1)
    centers = (2 * order - 1) * 350.0 / (4 * length_m)
    centers = centers * rng.uniform(1 - spread, 1 + spread, count)
    centers = np.minimum(centers, 0.48 * SAMPLE_RATE)
    widths = np.maximum(80.0, centers * rng.uniform(0.08, 0.25, count))
    gains = rng.uniform(0.4, 1.0, count) * rng.uniform(0.5, 1.0) ** (order - 1)
    floor = log_uniform(rng, 0.003, 0.05)
    top = log_uniform(rng, 3500, 14_000)
    return Tract(tuple(centers), tuple(widths), tuple(gains), floor, top)


def source(rng: np.random.Generator, f0: Signal, effort: Signal, throat: Throat) -> Signal:
    """Vibration (n,) of a throat at the pitch `f0` in Hz; `effort` in 0..1 brightens it."""
    n = len(f0)
    pitch = f0 * (1.0 + throat.jitter * wander(rng, n, 60.0))
    # A loud voice closes the glottis faster: its harmonics reach higher (Fant 1960).
    brightness = throat.brightness * (0.12 + 0.88 * effort) * np.exp(0.2 * wander(rng, n, 8.0))
    tone = pulses(pitch, brightness, float(rng.uniform(0, 2 * np.pi)))
    if throat.subharmonic > 0:
        # Period doubling: every second cycle is weaker, as in strained cries and barks.
        half = np.pi * np.cumsum(pitch, dtype=np.float64) / SAMPLE_RATE
        tone *= 1.0 + throat.subharmonic * np.cos(half).astype(np.float32)
    if throat.roughness > 0:
        # Deterministic chaos of an overblown throat, as a fast random modulation.
        tone *= 1.0 + throat.roughness * wander(rng, n, float(rng.uniform(60, 300)))
    breath = noise(rng, n) * (0.5 + 0.5 * np.minimum(np.abs(tone), 2.0))
    return np.asarray((1.0 - 0.5 * throat.breath) * tone + throat.breath * breath, np.float32)


def utter(
    rng: np.random.Generator,
    f0: Signal,
    loudness: Signal,
    throat: Throat,
    tract: Tract,
    opening: Signal | None = None,
    closed_ratio: float = 0.6,
) -> Signal:
    """One utterance (n,): the source at `f0` (Hz) and `loudness` (0..1) through the tract.

    `opening` (n,) in 0..1 moves from the tract with its resonances at `closed_ratio` of
    their place to the open one: the movement of a mouth, by a cross-fade of two filters.
    """
    vibration = source(rng, f0, loudness, throat)
    voiced = shape(vibration, tract.gain)
    if opening is not None:
        closed = shape(vibration, tract.scaled(closed_ratio).gain)
        voiced = opening * voiced + (1.0 - opening) * closed
    return np.asarray(voiced * loudness, np.float32)


def breathe(rng: np.random.Generator, loudness: Signal, tract: Tract) -> Signal:
    """Breath noise (n,) through the tract, without voice, at `loudness` (0..1)."""
    return np.asarray(noise(rng, len(loudness), tract.gain) * loudness, np.float32)
