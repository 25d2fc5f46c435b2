"""Helicopters and chainsaws: periodic engines with their own bodies.

After Farnell, Designing Sound (2010): rotors as pulse-modulated noise,
engines as pulse trains in pipes.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from soundprompt.mini.sounds.dsp import (
    SAMPLE_RATE,
    Signal,
    add_at,
    bandpass,
    curve,
    damped,
    decibels,
    highpass,
    log_uniform,
    lowpass,
    noise,
    pulses,
    resonances,
    rms,
    scatter,
    seconds,
    shape,
    swell,
    wander,
)


def helicopter(rng: np.random.Generator, n: int) -> Signal:
    """A helicopter (n,): blade slap over rumble and modulated noise, turbine, tail rotor.

    Blades pass at 8 to 26 Hz, and their beat is audible in some bands at least; near or far,
    hovering or flying past with a Doppler shift.
    """
    blade_hz = log_uniform(rng, 8, 26)
    bend, level = _passage(rng, n)
    blade = blade_hz * bend * (1.0 + 0.01 * wander(rng, n, 0.7))
    sharpness = log_uniform(rng, 15, 250)
    slap = pulses(blade, sharpness)
    # The same pulses, squeezed to 0..1, open and close the noise of the blades.
    gate = np.clip(slap, 0, None)
    gate = (gate / (np.percentile(gate, 99) + 1e-6)) ** rng.uniform(0.5, 1.5)
    depth = rng.uniform(0.5, 1.0)
    cutoff, tilt = log_uniform(rng, 200, 3500), rng.uniform(0.5, 1.4)
    wash = noise(rng, n, lambda f: highpass(f, 60, 1) * lowpass(f, cutoff, tilt))
    wash *= (1.0 - depth) + depth * gate * 2.0
    body = log_uniform(rng, 40, 220)
    width = rng.uniform(0.5, 2) * body
    blows = slap + noise(rng, n) * gate
    thump = shape(blows, lambda f: 0.05 + resonances(f, body, width, 1.0))
    low = log_uniform(rng, 60, 300)
    rumble = noise(rng, n, lambda f: bandpass(f, 20, low, 1))
    mixed = wash / rms(wash) + decibels(rng.uniform(-9, 10)) * thump / rms(thump)
    mixed += decibels(rng.uniform(-15, 0)) * rumble
    mixed += _engine_tones(rng, n, blade)
    for _ in range(2):
        mixed += decibels(rng.uniform(-16, 6)) * rms(mixed) * _without_beat(rng, n)
    return np.asarray(mixed * level, np.float32)


def _without_beat(rng: np.random.Generator, n: int) -> Signal:
    """Exhaust and air (n,): a band of noise, unsteady by itself, that the blades leave alone.

    Of a real helicopter only a part of the spectrum beats.
    """
    center, order = log_uniform(rng, 75, 6000), rng.uniform(0.5, 3.0)
    band = noise(rng, n, lambda f: bandpass(f, 0.8 * center, 1.2 * center, order))
    unsteady = rng.uniform(0.0, 0.7) * wander(rng, n, log_uniform(rng, 0.5, 30))
    return np.asarray(band * np.exp(unsteady), np.float32)


def _passage(rng: np.random.Generator, n: int) -> tuple[Signal, Signal]:
    """Doppler factor and level (n,) of a flight past the microphone, or of a hover."""
    if rng.random() < 0.4:
        steady = np.exp(0.15 * wander(rng, n, 0.5))
        return np.ones(n, np.float32), steady.astype(np.float32)
    speed = rng.uniform(10, 70) * rng.choice([-1.0, 1.0])
    nearest = log_uniform(rng, 40, 500)
    x = speed * (np.arange(n, dtype=np.float32) / SAMPLE_RATE - rng.uniform(-3, 8))
    distance = np.sqrt(x * x + nearest * nearest)
    # f' = f / (1 + v_radial / c); the level falls as the inverse of the distance.
    doppler = 1.0 / (1.0 + speed * x / distance / 343.0)
    loud = np.min(distance) / distance * np.exp(0.1 * wander(rng, n, 0.7))
    return doppler.astype(np.float32), loud.astype(np.float32)


def _engine_tones(rng: np.random.Generator, n: int, blade: Signal) -> Signal:
    """Tail rotor and turbine: harmonics locked to the main rotor, each present or not."""
    tones = np.zeros(n, np.float32)
    if rng.random() < 0.6:
        tail = blade * rng.uniform(3.5, 6.5)
        tones += decibels(rng.uniform(-20, -4)) * pulses(tail, log_uniform(rng, 150, 1500))
    for _ in range(int(rng.choice([0, 1, 3, 8]))):
        whine = blade / np.mean(blade) * log_uniform(rng, 400, 9000)
        phase = 2 * np.pi * np.cumsum(whine, dtype=np.float64) / SAMPLE_RATE
        tones += decibels(rng.uniform(-44, -16)) * np.sin(phase).astype(np.float32)
    return tones


def chainsaw(rng: np.random.Generator, n: int) -> Signal:
    """A chainsaw (n,): a two-stroke engine that idles, revs, cuts, and at times is started.

    A two-stroke fires once a turn: 2,500 to 12,000 rpm give 42 to 200 Hz.
    """
    idle = rng.uniform(38, 70)
    top = rng.uniform(100, 215)
    throttle, running = _throttle(rng, n)
    f0 = idle + (top - idle) * throttle
    f0 *= 1.0 + rng.uniform(0.005, 0.04) * wander(rng, n, 5.0)
    sharpness = log_uniform(rng, 1200, 9000)
    engine = pulses(f0, sharpness * (0.4 + 0.6 * throttle))
    # Firings differ from one turn to the next, more so at idle.
    engine = engine * (1.0 + (0.5 - 0.35 * throttle) * wander(rng, n, 1.3 * idle))
    grit = noise(rng, n) * (0.3 + np.clip(engine, 0, 2.5))
    share = log_uniform(rng, 0.02, 0.5)
    centers = np.exp(rng.uniform(np.log(150), np.log(9000), 9))
    widths = centers * rng.uniform(0.1, 0.8, 9)
    gains = rng.uniform(0.2, 1.0, 9) * (500.0 / centers) ** rng.uniform(-0.5, 0.4)
    exhaust = np.asarray(engine + share * grit, np.float32)
    muffler = shape(exhaust, lambda f: 0.08 + resonances(f, centers, widths, gains))
    track = muffler / rms(muffler) * (0.2 + 0.8 * throttle)
    if rng.random() < 0.75:
        # The chain in the wood: bright noise that follows the load.
        low, high = log_uniform(rng, 500, 3000), log_uniform(rng, 5000, 12_000)
        chain = noise(rng, n, lambda f: bandpass(f, low, high, 1)) * throttle
        chain *= 1.0 + 0.3 * wander(rng, n, 12.0)
        track += decibels(rng.uniform(-30, -9)) * chain
    track *= running
    if running[0] < 0.5:
        _pull_cord(rng, track, running)
    return np.asarray(track, np.float32)


def _throttle(rng: np.random.Generator, n: int) -> tuple[Signal, Signal]:
    """Throttle (n,) in 0..1 with bursts and load, and whether the engine runs (0 or 1).

    Every recording revs: an engine that only idles could be anything with a motor.
    """
    knots = int(rng.integers(3, 12))
    values = rng.choice([0.0, 0.6, 0.85, 1.0], knots, p=[0.3, 0.15, 0.25, 0.3])
    values[1::2] = np.maximum(values[1::2], 0.75)
    if rng.random() < 0.4:
        values = np.full(knots, rng.choice([0.75, 0.9, 1.0]))
    times = np.sort(rng.uniform(0, n, knots))
    steps = values[np.clip(np.searchsorted(times, np.arange(0, n, 48)), 0, knots - 1)]
    # The engine follows the trigger with its own inertia, a one-pole lag.
    lag = np.exp(-0.002 / log_uniform(rng, 0.05, 0.4))
    smooth, _ = lfilter([1.0 - lag], [1.0, -lag], steps, zi=[lag * steps[0]])
    throttle = np.interp(np.arange(n), np.arange(0, n, 48), smooth)
    throttle = np.clip(throttle * (1.0 + rng.uniform(0.02, 0.15) * wander(rng, n, 2.5)), 0.0, 1.1)
    running = np.ones(n, np.float32)
    if rng.random() < 0.2:
        starts = rng.uniform(0.15, 0.6)
        running = curve(n, [0, starts, starts + 0.03, 1], [0, 0, 1, 1])
    elif rng.random() < 0.1:
        stops = rng.uniform(0.5, 0.9)
        running = curve(n, [0, stops, stops + 0.05, 1], [1, 1, 0, 0])
    return throttle.astype(np.float32), running


def _pull_cord(rng: np.random.Generator, track: Signal, running: Signal) -> None:
    """Pulls at the starter while the engine is off: ratchet clicks and a few weak firings."""
    position = int(rng.uniform(0.05, 0.4) * SAMPLE_RATE)
    while position < len(track):
        n = seconds(rng.uniform(0.25, 0.5))
        if running[position] < 0.5:
            starts = np.sort(rng.integers(0, n, int(rng.integers(5, 14)))).astype(np.int64)
            modes = np.exp(rng.uniform(np.log(300), np.log(5000), len(starts)))
            clicks = scatter(damped(modes, 0.004, 480), starts, n)
            f0 = 30.0 * curve(n, [0, 0.4, 1], [0.5, 1.0, 0.3])
            puffs = pulses(f0, log_uniform(rng, 300, 1500)) * swell(n, 0.3, 0.4)
            add_at(track, 0.3 * clicks + rng.uniform(0.1, 0.5) * puffs, position)
        position += n + seconds(rng.uniform(0.4, 1.0))
