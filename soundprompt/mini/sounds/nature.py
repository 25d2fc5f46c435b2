"""Rain, sea waves and fire: textures of many small random events over shaped noise.

Textures as sums of independent grains after Farnell, Designing Sound (2010); pitched
drops after Minnaert, On Musical Air-Bubbles and the Sounds of Running Water (1933).
"""

from __future__ import annotations

import numpy as np

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
    resonances,
    rms,
    scatter,
    seconds,
    shape,
    swell,
    wander,
)

# More drops than this in a clip sound like hiss, and cost too much.
MOST_DROPS = 3000


def rain(rng: np.random.Generator, n: int) -> Signal:
    """Rain (n,): from a drizzle to a downpour, on leaves, roof, water or an umbrella."""
    rate = log_uniform(rng, 150, 3000)
    surface = rng.choice(4)
    drops = _drops(rng, n, rate, int(surface))
    low, high = log_uniform(rng, 60, 1500), log_uniform(rng, 3500, 20_000)
    bump, width = log_uniform(rng, 300, 8000), log_uniform(rng, 500, 6000)
    peak = rng.uniform(0.0, 2.5)
    tilt = rng.uniform(-0.5, 0.25)

    def hiss_gain(f: Signal) -> Signal:
        body = bandpass(f, low, high, 1) * (1.0 + resonances(f, bump, width, peak))
        return np.asarray(body * ((f + 50.0) / 1000.0) ** tilt, np.float32)

    hiss = noise(rng, n, hiss_gain)
    # The denser the rain, the more of it is hiss, the sum of inaudible drops.
    share = float(np.interp(np.log(rate), np.log([150, 3000]), [0, 5])) + rng.uniform(-8, 8)
    mixed = drops / rms(drops) + decibels(share) * hiss
    mixed *= np.exp(rng.uniform(0.0, 0.2) * wander(rng, n, log_uniform(rng, 0.5, 8)))
    if rng.random() < 0.25:
        mixed += decibels(rng.uniform(-8, 8)) * _drips(rng, n) * rms(mixed)
    if rng.random() < 0.06:
        thunder = noise(rng, n, lambda f: bandpass(f, 25, 140, 1)) * swell(n, 0.2, 0.7)
        mixed += rms(mixed) * thunder * np.exp(0.5 * wander(rng, n, 4.0))
    return np.asarray(mixed, np.float32)


def _drops(rng: np.random.Generator, n: int, rate: float, surface: int) -> Signal:
    """Impacts of drops at `rate` per second: bursts of noise with the ring of the surface."""
    count = max(8, min(rng.poisson(rate * n / SAMPLE_RATE), MOST_DROPS))
    # Drop sizes are skewed, and the nearest drops stand out: log-normal levels.
    level = np.exp(rng.normal(0, rng.uniform(0.3, 1.2), count))
    center, spread, decay = (
        (log_uniform(rng, 2500, 6000), 0.5, log_uniform(rng, 0.0006, 0.002)),
        (log_uniform(rng, 500, 3000), 0.4, log_uniform(rng, 0.002, 0.012)),
        (log_uniform(rng, 1200, 4500), 0.45, log_uniform(rng, 0.002, 0.008)),
        (log_uniform(rng, 250, 900), 0.3, log_uniform(rng, 0.002, 0.006)),
    )[surface]
    pitch = np.clip(center * np.exp(spread * rng.standard_normal(count)), 80, 11_000)
    click = log_uniform(rng, 0.0002, 0.003)
    length = seconds(min(4 * max(decay, click), 0.012))
    grains = damped(pitch, decay, length, rng.uniform(0, 2 * np.pi, count))
    # Every impact starts with a burst of all frequencies; on cloth and stone it is nearly all.
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    burst = rng.standard_normal((count, length), dtype=np.float32)
    burst *= np.exp(-t / click)
    grains += log_uniform(rng, 0.3, 4.0) * burst
    starts = rng.integers(-length, n, count)
    return scatter(grains * level[:, None].astype(np.float32), starts, n)


def _drips(rng: np.random.Generator, n: int) -> Signal:
    """Large drops from a gutter into water: bubbles that ring with a rising pitch."""
    count = int(rng.integers(2, 40))
    length = seconds(0.05)
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    pitch = np.exp(rng.uniform(np.log(400), np.log(4000), count)).astype(np.float32)[:, None]
    decay = rng.uniform(0.004, 0.015, count).astype(np.float32)[:, None]
    # A closing bubble rises in pitch as it shrinks and nears the surface.
    rise = rng.uniform(0.0, 12.0, count).astype(np.float32)[:, None]
    grains = np.sin(2 * np.pi * pitch * t * (1.0 + rise * t)) * np.exp(-t / decay)
    track = scatter(grains.astype(np.float32), rng.integers(0, n, count), n)
    return track / np.float32(rms(track))


def sea_waves(rng: np.random.Generator, n: int) -> Signal:
    """Sea waves (n,): swells that rise, break and run out as foam, over a steady surf.

    Each wave is low noise first, bright noise at the break, then a thin hiss that lags.
    """
    duration = n / SAMPLE_RATE
    distance = rng.random()
    high = 9000.0 * (900.0 / 9000.0) ** distance * log_uniform(rng, 0.7, 1.4)
    low, middle = log_uniform(rng, 25, 250), log_uniform(rng, 250, 1100)
    slope = rng.uniform(0.5, 1.2)
    bands = (
        noise(rng, n, lambda f: bandpass(f, low, middle, 1)),
        noise(rng, n, lambda f: highpass(f, 0.6 * middle, 1) * lowpass(f, high, slope)),
        noise(rng, n, lambda f: highpass(f, log_uniform(rng, 1500, 4000), 1) * lowpass(f, 11e3, 1)),
    )
    weights = [1.0, decibels(rng.uniform(-14, 4)), decibels(rng.uniform(-32, -8) - 8 * distance)]
    # Five seconds hold half a wave at least, louder than the surf, or it sounds like rain.
    period = log_uniform(rng, 1.2 if rng.random() < 0.2 else 3.0, 9)
    floor = decibels(rng.uniform(-30, -12))
    envelopes = [np.full(n, floor * rng.uniform(0.5, 1.5), np.float32) for _ in bands]
    moment = -rng.uniform(0, 1.5) * period
    while moment < duration:
        height = decibels(rng.uniform(-10, 0))
        _one_wave(rng, envelopes, moment, period, height)
        moment += period * rng.uniform(0.5, 1.5)
    track = np.zeros(n, np.float32)
    for band, envelope, weight in zip(bands, envelopes, weights, strict=True):
        ripple = np.exp(rng.uniform(0.05, 0.35) * wander(rng, n, rng.uniform(2, 9)))
        track += weight * band * envelope * ripple
    if rng.random() < 0.35:
        splashes = _drips(rng, n) * envelopes[1]
        track += decibels(rng.uniform(-22, -6)) * rms(track) * splashes
    return track


def _one_wave(
    rng: np.random.Generator,
    envelopes: list[Signal],
    start_s: float,
    period: float,
    height: float,
) -> None:
    """Adds the envelope of one wave to each band: later and longer from low to high."""
    lag = rng.uniform(0.0, 0.25) * period
    for k, envelope in enumerate(envelopes):
        n = seconds(period * rng.uniform(0.7, 1.3) * (1.0 + 0.25 * k))
        attack = rng.uniform(0.1, 0.5)
        power = rng.uniform(0.8, 2.0)
        rise = curve(n, [0, attack, attack + 0.1 * (1 - attack), 1], [0, 1, 0.9, 0]) ** power
        first = round((start_s + k * lag) * SAMPLE_RATE)
        add_at(envelope, (height * rise).astype(np.float32), first)


def crackling_fire(rng: np.random.Generator, n: int) -> Signal:
    """A fire (n,): Poisson crackles of all sizes over low roar and hiss (Farnell 2010)."""
    roar_top = log_uniform(rng, 60, 500)
    roar = noise(rng, n, lambda f: bandpass(f, 20, roar_top, 1))
    roar *= np.exp(rng.uniform(0.1, 0.6) * wander(rng, n, rng.uniform(2, 10)))
    top, tilt = log_uniform(rng, 2000, 12_000), rng.uniform(0.3, 1.0)
    hiss = noise(rng, n, lambda f: highpass(f, 300, 1) * lowpass(f, top, tilt))
    hiss *= np.exp(rng.uniform(0.05, 0.4) * wander(rng, n, rng.uniform(1, 6)))
    crackles = _crackles(rng, n, log_uniform(rng, 6, 140))
    track = crackles / np.max(np.abs(crackles))
    # The crackles stand out of both, whatever the fire: without them it is wind or surf.
    track += decibels(rng.uniform(-56, -28)) * roar + decibels(rng.uniform(-70, -42)) * hiss
    return np.asarray(track, np.float32)


def _crackles(rng: np.random.Generator, n: int, rate: float) -> Signal:
    """Snaps at `rate` per second, in showers: many faint and sharp, few large and long."""
    count = max(3, rng.poisson(rate * n / SAMPLE_RATE))
    moments = rng.uniform(0, n, count)
    # Some snaps set off a shower of others within a tenth of a second.
    followers = rng.random(count) < rng.uniform(0.0, 0.5)
    shifts = rng.exponential(0.06, count) * SAMPLE_RATE
    moments[1:] = np.where(followers[1:], moments[:-1] + shifts[1:], moments[1:])
    size = np.minimum(rng.pareto(rng.uniform(0.9, 2.0), count) + 0.15, 12.0)
    decay = np.clip(0.0008 * size**0.5 * rng.lognormal(0, 0.6, count), 0.0002, 0.02)
    length = seconds(0.03)
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    grit = rng.standard_normal((count, length), dtype=np.float32)
    burst = grit * np.exp(-t / decay[:, None])
    pitch = np.clip(3500.0 * size**-0.3 * rng.lognormal(0, 0.6, count), 150, 11_000)
    ring = damped(pitch, decay * rng.uniform(0.5, 3.0, count), length)
    tone = rng.uniform(0.0, 1.0, count)[:, None]
    grains = ((1.0 - tone) * burst + tone * ring) * size[:, None]
    color = rng.uniform(-0.6, 0.7)
    crackles = scatter(grains.astype(np.float32), moments.astype(np.int64), n)
    return shape(crackles, lambda f: (f / 3000.0 + 0.15) ** color)
