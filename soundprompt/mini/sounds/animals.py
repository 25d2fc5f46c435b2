"""Dogs and roosters: events of a source-filter voice laid out at random in time."""

from __future__ import annotations

import numpy as np

from soundprompt.mini.sounds.dsp import (
    Signal,
    add_at,
    curve,
    decibels,
    log_uniform,
    peak_normalized,
    seconds,
    swell,
    wander,
)
from soundprompt.mini.sounds.voice import Throat, Tract, breathe, sample_tract, utter


def dog(rng: np.random.Generator, n: int) -> Signal:
    """A dog (n,): barks in series or alone, among growls, howls or whines now and then."""
    # 0: a toy dog, 1: the largest; tract length and pitch follow the body size.
    size = float(rng.beta(1.2, 1.2))
    tract = sample_tract(rng, 0.06 + 0.14 * size, int(rng.integers(3, 6)), 0.25)
    pitch = 1100.0 * (170.0 / 1100.0) ** size * log_uniform(rng, 0.75, 1.33)
    throat = Throat(
        brightness=log_uniform(rng, 700, 3500),
        jitter=rng.uniform(0.005, 0.05),
        roughness=rng.choice([0.0, rng.uniform(0.1, 0.9)]),
        breath=rng.uniform(0.05, 0.45),
        subharmonic=rng.choice([0.0, rng.uniform(0.1, 0.8)]),
    )
    manner = rng.choice(4, p=[0.78, 0.08, 0.07, 0.07])
    track = np.zeros(n, np.float32)
    if manner == 0:
        _barks(rng, track, pitch, throat, tract)
    elif manner == 1:
        _growls(rng, track, size, throat, tract)
    elif manner == 2:
        _howls(rng, track, 0.8 * pitch, throat, tract)
    else:
        _whines(rng, track, pitch, tract)
    if manner != 0:
        # Whoever only growls, howls or whines could be an engine, a siren or a baby.
        loud = np.float32(np.max(np.abs(track)))
        barks = np.zeros(n, np.float32)
        _barks(rng, barks, pitch, throat, tract, at_least=3)
        track += loud * np.float32(decibels(rng.uniform(0, 6))) * peak_normalized(barks)
    return track


def _bark(
    rng: np.random.Generator, pitch: float, length_s: float, throat: Throat, tract: Tract
) -> Signal:
    """One bark: pitch shoots up, stays, falls; the mouth opens fast and closes."""
    n = seconds(length_s)
    peak = rng.uniform(0.1, 0.5)
    low, end = rng.uniform(0.4, 0.95), rng.uniform(0.35, 0.95)
    f0 = pitch * curve(n, [0, peak, 1], [low, 1.0, end])
    loudness = swell(n, rng.uniform(0.03, 0.25), rng.uniform(0.2, 0.8), rng.uniform(0.6, 1.5))
    opening = swell(n, rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.6))
    return utter(rng, f0, loudness, throat, tract, opening, rng.uniform(0.5, 0.8))


def _barks(
    rng: np.random.Generator,
    track: Signal,
    pitch: float,
    throat: Throat,
    tract: Tract,
    at_least: int = 1,
) -> None:
    """Barks on `track`: groups, regular or not, or `at_least` so many, as far as there is time."""
    length = log_uniform(rng, 0.09, 0.5)
    gap = length + log_uniform(rng, 0.08, 1.3)
    count = int(rng.choice([1, 2, 3, int(rng.integers(4, 14))], p=[0.3, 0.17, 0.13, 0.4]))
    remaining = max(count, at_least)
    growling = rng.random() < 0.12
    start = rng.uniform(0.0, 0.6) if rng.random() < 0.7 else rng.uniform(0.0, 3.5)
    duration = len(track) / seconds(1.0)
    while remaining > 0 and start < duration - 0.05:
        this = length * log_uniform(rng, 0.75, 1.35)
        level = decibels(rng.uniform(-9, 0))
        event = _bark(rng, pitch * log_uniform(rng, 0.88, 1.13), this, throat, tract)
        add_at(track, level * event, seconds(start))
        if growling:
            murmur = _growl(rng, log_uniform(rng, 60, 140), log_uniform(rng, 0.2, 0.9), tract)
            add_at(track, 0.3 * level * murmur, seconds(start + this))
        # A double bark now and then: the second one follows almost at once.
        start += this + 0.05 if rng.random() < 0.15 else gap * log_uniform(rng, 0.75, 1.5)
        remaining -= 1


def _growl(rng: np.random.Generator, pitch: float, length_s: float, tract: Tract) -> Signal:
    """A growl: low rough pulses with the mouth almost closed."""
    n = seconds(length_s)
    f0 = pitch * (1.0 + 0.1 * wander(rng, n, 3.0))
    throat = Throat(log_uniform(rng, 400, 1500), 0.08, rng.uniform(0.4, 0.9), 0.4, 0.3)
    loudness = swell(n, 0.3, 0.3) * np.clip(0.75 + 0.25 * wander(rng, n, 6.0), 0.1, 1.0)
    return utter(rng, f0, loudness.astype(np.float32), throat, tract.scaled(0.7))


def _growls(
    rng: np.random.Generator, track: Signal, size: float, throat: Throat, tract: Tract
) -> None:
    """Long growls that end, often, in barks."""
    position = rng.uniform(0.0, 1.0)
    pitch = 160.0 - 90.0 * size
    for _ in range(int(rng.integers(1, 4))):
        length = rng.uniform(0.6, 2.2)
        add_at(track, _growl(rng, pitch, length, tract), seconds(position))
        position += length
        if rng.random() < 0.6:
            bark = _bark(rng, 3.0 * pitch, rng.uniform(0.12, 0.35), throat, tract)
            add_at(track, log_uniform(rng, 1.0, 3.0) * bark, seconds(position))
            position += 0.4
        position += rng.uniform(0.1, 0.8)


def _howls(
    rng: np.random.Generator, track: Signal, pitch: float, throat: Throat, tract: Tract
) -> None:
    """Howls: one to three long tones that slide up, hold and fall."""
    position = rng.uniform(0.0, 0.8)
    clean = Throat(0.6 * throat.brightness, 0.008, 0.0, 0.08, 0.0)
    for _ in range(int(rng.integers(1, 4))):
        n = seconds(rng.uniform(0.8, 2.6))
        steps = [rng.uniform(0.55, 0.9), 1.0, rng.uniform(0.85, 1.1), rng.uniform(0.6, 0.9)]
        f0 = pitch * curve(n, [0, rng.uniform(0.1, 0.3), 0.75, 1], steps)
        add_at(track, utter(rng, f0, swell(n, 0.15, 0.3), clean, tract), seconds(position))
        position += n / seconds(1.0) + rng.uniform(0.1, 0.8)


def _whines(rng: np.random.Generator, track: Signal, pitch: float, tract: Tract) -> None:
    """Whimpers: short high tones through the nose, in irregular runs, and panting."""
    position = rng.uniform(0.0, 0.8)
    throat = Throat(log_uniform(rng, 400, 1200), 0.01, 0.0, 0.1, 0.0)
    high = np.clip(2.2 * pitch, 600.0, 1800.0)
    panting = rng.random() < 0.5
    while position < len(track) / seconds(1.0):
        n = seconds(log_uniform(rng, 0.1, 0.9))
        bend = [rng.uniform(0.7, 1.0), rng.uniform(0.95, 1.2), rng.uniform(0.6, 1.0)]
        f0 = high * curve(n, [0, rng.uniform(0.2, 0.7), 1], bend)
        add_at(track, utter(rng, f0, swell(n, 0.3, 0.4), throat, tract), seconds(position))
        position += n / seconds(1.0)
        for _ in range(int(rng.integers(0, 5)) if panting else 0):
            puff = breathe(rng, swell(seconds(0.13), 0.3, 0.6), tract)
            add_at(track, decibels(-18) * puff, seconds(position))
            position += 0.2
        position += log_uniform(rng, 0.05, 0.8)


def rooster(rng: np.random.Generator, n: int) -> Signal:
    """A rooster (n,): one or two crows of three to five syllables, perhaps clucks around."""
    tract = sample_tract(rng, rng.uniform(0.035, 0.08), 5, 0.2)
    pitch = log_uniform(rng, 430, 1150)
    throat = Throat(
        brightness=log_uniform(rng, 1500, 6000),
        jitter=rng.uniform(0.003, 0.015),
        roughness=rng.choice([0.0, rng.uniform(0.05, 0.5)]),
        breath=rng.uniform(0.02, 0.35),
        subharmonic=rng.choice([0.0, rng.uniform(0.05, 0.4)], p=[0.7, 0.3]),
    )
    track = np.zeros(n, np.float32)
    duration = n / seconds(1.0)
    start = rng.uniform(0.0, 0.3) if rng.random() < 0.55 else rng.uniform(0.0, 0.45 * duration)
    stretch = log_uniform(rng, 0.75, 1.35)
    while start < duration - 0.6:
        length = _crow(rng, track, start, pitch, stretch, throat, tract)
        start += length + (rng.uniform(0.4, 3.0) if rng.random() < 0.4 else duration)
    if rng.random() < 0.2:
        for moment in rng.uniform(0, duration, int(rng.integers(2, 8))):
            cluck = _bark(rng, 0.6 * pitch, rng.uniform(0.05, 0.12), throat, tract)
            add_at(track, decibels(rng.uniform(-28, -14)) * cluck, seconds(moment))
    return track


def _crow(
    rng: np.random.Generator,
    track: Signal,
    start_s: float,
    pitch: float,
    stretch: float,
    throat: Throat,
    tract: Tract,
) -> float:
    """One crow on `track`: short syllables, then a long one that sags. Returns its seconds."""
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    short = rng.uniform(0.08, 0.28, count)
    lengths = [*short, rng.uniform(0.15, 0.6), rng.uniform(0.7, 1.9)]
    heights = [*rng.uniform(0.6, 0.95, count), rng.uniform(0.9, 1.15), rng.uniform(0.9, 1.1)]
    position = start_s
    for k, (length, height) in enumerate(zip(lengths, heights, strict=True)):
        last = k == len(lengths) - 1
        n = seconds(length * stretch)
        sag = rng.uniform(0.55, 0.92) if last else rng.uniform(0.8, 1.05)
        bend = [rng.uniform(0.75, 1.0), 1.0, rng.uniform(0.92, 1.04), sag]
        f0 = pitch * height * curve(n, [0, rng.uniform(0.08, 0.2), rng.uniform(0.4, 0.8), 1], bend)
        loudness = swell(n, 0.06 if last else 0.2, rng.uniform(0.1, 0.5) if last else 0.25, 0.7)
        level = 1.0 if last else decibels(rng.uniform(-10, 0))
        opening = swell(n, 0.25, 0.5 if last else 0.2)
        crow = utter(rng, f0, loudness, throat, tract, opening, rng.uniform(0.6, 0.9))
        add_at(track, level * crow, seconds(position))
        position += length * stretch + rng.uniform(-0.02, 0.15)
    return position - start_s
