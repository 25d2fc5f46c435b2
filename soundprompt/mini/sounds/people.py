"""Crying babies and sneezes: human voices and breath in the source-filter model."""

from __future__ import annotations

import numpy as np

from soundprompt.mini.sounds.dsp import (
    SAMPLE_RATE,
    Signal,
    add_at,
    bandpass,
    curve,
    decibels,
    log_uniform,
    noise,
    resonances,
    seconds,
    swell,
    wander,
)
from soundprompt.mini.sounds.voice import Throat, Tract, breathe, sample_tract, utter


def crying_baby(rng: np.random.Generator, n: int) -> Signal:
    """A crying baby (n,): cries on each breath out, gasps between, or short fussy bursts."""
    # An infant's tract is 7 to 9 cm long: its formants lie near 1.1, 3.3 and 5.5 kHz.
    tract = sample_tract(rng, rng.uniform(0.065, 0.095), 5, 0.2)
    pitch = log_uniform(rng, 300, 600)
    manner = rng.choice(3, p=[0.6, 0.25, 0.15])
    track = np.zeros(n, np.float32)
    # Short bursts alone could be a dog's: a fussy baby starts with one long cry.
    position = rng.uniform(-0.6, 0.6) if manner == 0 else rng.uniform(0.0, 0.6)
    started = manner == 0
    breath_level = decibels(rng.uniform(-50, -20))
    base = log_uniform(rng, 0.6, 2.8) if manner == 0 else log_uniform(rng, 0.2, 0.5)
    throat = _throat(rng)
    ends = rng.uniform(1.5, 4.0) if rng.random() < 0.15 else n / SAMPLE_RATE
    while position < ends - 0.1:
        length = base * log_uniform(rng, 0.6, 1.6)
        if not started or (manner == 2 and rng.random() < 0.3):
            length, started = rng.uniform(0.8, 1.8), True
        cry = _cry(rng, pitch * log_uniform(rng, 0.85, 1.2), length, throat, tract)
        add_at(track, decibels(rng.uniform(-8, 0)) * cry, round(position * SAMPLE_RATE))
        position += length + rng.uniform(0.02, 0.12)
        if rng.random() < 0.5:
            gasp = _gasp(rng, 1.5 * pitch, tract, breath_level)
            add_at(track, gasp, round(position * SAMPLE_RATE))
            position += len(gasp) / SAMPLE_RATE
        position += log_uniform(rng, 0.03, 0.4 if manner else 0.7)
        if rng.random() < 0.2:
            throat = _throat(rng)
    return track


def _throat(rng: np.random.Generator) -> Throat:
    """A clear, hoarse or strained infant voice."""
    strained = rng.random() < 0.35
    return Throat(
        brightness=log_uniform(rng, 1000, 6000),
        jitter=rng.uniform(0.003, 0.02),
        roughness=rng.uniform(0.2, 1.0) if strained else 0.0,
        breath=rng.uniform(0.02, 0.5),
        subharmonic=rng.uniform(0.1, 0.7) if rng.random() < 0.25 else 0.0,
    )


def _cry(
    rng: np.random.Generator, pitch: float, length_s: float, throat: Throat, tract: Tract
) -> Signal:
    """One cry: the pitch rises into a plateau and falls, with vibrato and breaks."""
    n = seconds(length_s)
    bend = [rng.uniform(0.6, 0.95), rng.uniform(0.95, 1.1), 1.0, rng.uniform(0.6, 0.98)]
    f0 = pitch * curve(n, [0, rng.uniform(0.08, 0.35), rng.uniform(0.5, 0.8), 1], bend)
    depth = rng.uniform(0.0, 0.05)
    rate = rng.uniform(4.0, 9.0) * (1.0 + 0.1 * wander(rng, n, 2.0))
    vibrato = np.sin(2 * np.pi * np.cumsum(rate) / SAMPLE_RATE).astype(np.float32)
    f0 = f0 * (1.0 + depth * vibrato + rng.uniform(0.01, 0.07) * wander(rng, n, rng.uniform(2, 5)))
    if rng.random() < 0.12:
        # Hyperphonation: the voice breaks into a whistle-like register for a while.
        first = int(rng.uniform(0.2, 0.6) * n)
        f0[first : first + int(rng.uniform(0.1, 0.4) * n)] *= rng.uniform(1.6, 2.2)
    loudness = swell(n, rng.uniform(0.05, 0.5), rng.uniform(0.1, 0.6), rng.uniform(0.6, 1.6))
    loudness *= np.clip(0.8 + 0.25 * wander(rng, n, 4.0), 0.2, 1.0)
    loudness *= np.clip(1.0 + rng.uniform(0.0, 0.6) * depth * 10 * vibrato, 0.2, 1.2)
    opening = swell(n, rng.uniform(0.1, 0.45), rng.uniform(0.1, 0.45))
    return utter(rng, f0, loudness, throat, tract, opening, rng.uniform(0.55, 0.85))


def _gasp(rng: np.random.Generator, pitch: float, tract: Tract, level: float) -> Signal:
    """The breath in: noise through the tract, at times with a squeak of voice."""
    n = seconds(rng.uniform(0.08, 0.35))
    air = breathe(rng, swell(n, 0.6, 0.25), tract.scaled(1.1))
    if rng.random() < 0.35:
        f0 = pitch * curve(n, [0, 1], [0.8, 1.2])
        squeak = utter(rng, f0, swell(n, 0.4, 0.3), Throat(1500, 0.03, 0.5, 0.6), tract)
        air = air + 0.7 * squeak
    return np.asarray(level * air, np.float32)


def sneezing(rng: np.random.Generator, n: int) -> Signal:
    """A sneezing person (n,): one to three sneezes, some with gasps, else no sound."""
    # Vocal tracts of a child (10 cm) to a large man (18.5 cm); pitch goes with them.
    tract = sample_tract(rng, rng.uniform(0.10, 0.185), 5)
    height = np.interp(tract.centers[0], [430, 900], [0.0, 1.0])
    pitch = 110.0 * 3.4**height * log_uniform(rng, 0.8, 1.6)
    voicing = rng.choice([0.0, rng.uniform(0.2, 1.0), rng.uniform(1.0, 3.0)], p=[0.25, 0.4, 0.35])
    count = int(rng.choice([1, 2, 3], p=[0.75, 0.17, 0.08]))
    early = rng.random() < 0.6
    position = rng.uniform(0.0, 0.3) if early else rng.uniform(0.0, 2.8)
    track = np.zeros(n, np.float32)
    for k in range(count):
        position += _inhale(rng, track, position, pitch, tract)
        if k == 0:
            # However long the gasps, the first sneeze itself is never lost.
            position = min(position, n / SAMPLE_RATE - 0.3)
        level = decibels(rng.uniform(-5, 0))
        position += _burst(rng, track, position, level, pitch, voicing, tract)
        position += rng.uniform(0.15, 1.6)
    if rng.random() < 0.2:
        sniff = breathe(rng, swell(seconds(rng.uniform(0.2, 0.5)), 0.5, 0.2), tract.scaled(1.6))
        add_at(track, decibels(rng.uniform(-28, -14)) * sniff, seconds(position))
    return track


def _inhale(
    rng: np.random.Generator, track: Signal, start_s: float, pitch: float, tract: Tract
) -> float:
    """The 'ah' before the burst: one to three growing breaths in. Returns its seconds."""
    if rng.random() < 0.45:
        return 0.0
    position = start_s
    voiced = rng.random() < 0.55
    for k in range(count := int(rng.choice([1, 2, 3], p=[0.75, 0.17, 0.08]))):
        n = seconds(log_uniform(rng, 0.1, 0.7))
        level = decibels(rng.uniform(-34, -10) - 4 * (count - 1 - k))
        rise = swell(n, rng.uniform(0.5, 0.85), 0.15, 1.3)
        event = breathe(rng, rise, tract)
        if voiced:
            f0 = pitch * curve(n, [0, 1], [rng.uniform(0.9, 1.2), rng.uniform(1.1, 1.8)])
            event += rng.uniform(0.3, 1.5) * utter(rng, f0, rise, Throat(900, 0.02, 0, 0.5), tract)
        add_at(track, level * event, seconds(position))
        position += n / SAMPLE_RATE + rng.uniform(0.0, 0.12)
    return position - start_s


def _burst(
    rng: np.random.Generator,
    track: Signal,
    start_s: float,
    level: float,
    pitch: float,
    voicing: float,
    tract: Tract,
) -> float:
    """The explosion: friction at teeth and nose, then a voiced fall. Returns its seconds."""
    n = seconds(log_uniform(rng, 0.2, 0.7))
    t = np.arange(n, dtype=np.float32) / SAMPLE_RATE
    attack, decay = log_uniform(rng, 0.002, 0.05), log_uniform(rng, 0.04, 0.22)
    envelope = (1.0 - np.exp(-t / attack)) * np.exp(-t / decay) * swell(n, 0.001, 0.3)
    low, high = log_uniform(rng, 200, 2500), log_uniform(rng, 4500, 14000)
    place, width = log_uniform(rng, 1500, 7000), log_uniform(rng, 500, 4000)

    def friction(f: Signal) -> Signal:
        teeth = 0.35 + resonances(f, place, width, 1.0)
        return bandpass(f, low, high, 1) * (teeth + 0.5 * tract.gain(f))

    event = noise(rng, n, friction) * envelope
    if voicing > 0:
        m = seconds(log_uniform(rng, 0.12, 0.5))
        bend = [rng.uniform(1.0, 1.6), rng.uniform(1.2, 2.2), rng.uniform(0.6, 1.0)]
        f0 = pitch * curve(m, [0, 0.2, 1], bend)
        throat = Throat(log_uniform(rng, 700, 2500), 0.03, rng.uniform(0, 0.4), 0.4)
        mouth = swell(m, 0.05, rng.uniform(0.4, 0.9))
        shout = utter(rng, f0, mouth, throat, tract, mouth, 0.6)
        # Some shout from the first instant, some let the voice follow the friction.
        add_at(track, 0.5 * level * voicing * shout, seconds(start_s + rng.uniform(-0.05, 0.12)))
    add_at(track, (level * event).astype(np.float32), seconds(start_s))
    return n / SAMPLE_RATE
