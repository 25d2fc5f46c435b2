"""Clocks: trains of small impacts on resonant bodies (Farnell, Designing Sound, 2010)."""

from __future__ import annotations

import numpy as np

from soundprompt.mini.sounds.dsp import (
    SAMPLE_RATE,
    Signal,
    add_at,
    bandpass,
    damped,
    decibels,
    log_uniform,
    noise,
    seconds,
)


def clock_tick(rng: np.random.Generator, n: int) -> Signal:
    """A clock (n,): steady ticks, alike or in tick-tock pairs, of a watch up to a tall clock."""
    rate = float(rng.choice([1.0, 2.0, rng.uniform(1.0, 3.0), rng.uniform(3.0, 5.5)]))
    size = rng.random()
    kinds = [_tick(rng, size)]
    if rng.random() < 0.6:
        # The two pallets of an escapement strike alike but not equally.
        kinds.append(_tick(rng, size) if rng.random() < 0.5 else 0.7 * kinds[0])
    lameness = rng.uniform(0.0, 0.12) if len(kinds) > 1 else 0.0
    jitter = rng.uniform(0.0, 0.003)
    track = np.zeros(n, np.float32)
    first = rng.uniform(0, 1) / rate
    for k in range(int(n / SAMPLE_RATE * rate) + 2):
        moment = first + (k + lameness * (k % 2)) / rate + jitter * rng.standard_normal()
        level = decibels(float(rng.normal(0, 0.8)))
        add_at(track, level * kinds[k % len(kinds)], round(moment * SAMPLE_RATE))
    if rng.random() < 0.3:
        # The whirr of the train of wheels, weak beside the ticks.
        low = log_uniform(rng, 100, 2000)
        whirr = noise(rng, n, lambda f: bandpass(f, low, 4 * low))
        whirr *= 1.0 + 0.5 * np.sin(2 * np.pi * rate * 4 * np.arange(n) / SAMPLE_RATE)
        track += decibels(rng.uniform(-66, -46)) * whirr.astype(np.float32)
    return track


def _tick(rng: np.random.Generator, size: float) -> Signal:
    """One tick: two or more impacts a few ms apart, ringing in gears and case.

    `size` runs from 0 (watch) to 1 (tall case): larger bodies are lower and ring longer.
    """
    length = seconds(0.25)
    count = int(rng.integers(6, 32))
    low = 2500.0 * (120.0 / 2500.0) ** size
    modes = np.exp(rng.uniform(np.log(low), np.log(11_000), count))
    decay = log_uniform(rng, 0.0006, 0.01) * (1.0 + 1.5 * size) * (3000.0 / modes) ** 0.4
    weight = rng.uniform(0.2, 1.0, count) * (modes / 3000.0) ** rng.uniform(-0.6, 0.4)
    body = weight @ damped(modes, decay, length, rng.uniform(0, 2 * np.pi, count))
    click = noise(rng, length) * np.exp(
        -np.arange(length, dtype=np.float32) / (SAMPLE_RATE * log_uniform(rng, 0.0005, 0.004))
    )
    impact = body / np.max(np.abs(body)) + log_uniform(rng, 0.08, 1.5) * click
    tick = np.zeros(length, np.float32)
    position = 0.0
    for k in range(int(rng.integers(1, 5))):
        level = 1.0 if k == 0 else decibels(rng.uniform(-20, 3))
        add_at(tick, (level * impact).astype(np.float32), round(position * SAMPLE_RATE))
        position += log_uniform(rng, 0.002, 0.04)
    return tick
