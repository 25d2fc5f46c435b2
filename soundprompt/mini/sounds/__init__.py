"""Synthetic sounds of ten everyday classes, and simulated field recordings of them.

No recorded sample is used; all sounds are synthesized from random parameters. `sound` generates a
dry source, `recording` a field recording of one or two sources, and `scene` one of several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft

from soundprompt.mini.sounds import animals, clocks, field, machines, nature, people
from soundprompt.mini.sounds.dsp import (
    SAMPLE_RATE,
    Signal,
    decibels,
    log_uniform,
    peak_normalized,
    response,
    rms,
    seconds,
)

__all__ = ["DURATION_S", "GENERATORS", "SAMPLE_RATE", "recording", "scene", "sound"]

DURATION_S = 5.0

GENERATORS: dict[str, Callable[[np.random.Generator, int], Signal]] = {
    "dog": animals.dog,
    "rain": nature.rain,
    "sea waves": nature.sea_waves,
    "crying baby": people.crying_baby,
    "clock tick": clocks.clock_tick,
    "sneezing": people.sneezing,
    "helicopter": machines.helicopter,
    "chainsaw": machines.chainsaw,
    "rooster": animals.rooster,
    "crackling fire": nature.crackling_fire,
}

# Probability that a clip of the class is shorter than the recording and padded with zeros, as
# short events in real datasets often are.
PADDED = {"dog": 0.55, "rooster": 0.5, "sneezing": 0.7, "crying baby": 0.25}
PADDED_ELSE = 0.04
# Duration of the foreground, as a fraction of a recording with a background.
NEAR_SHARE = (0.5, 0.75)


def sound(label: str, rng: np.random.Generator, duration_s: float = DURATION_S) -> Signal:
    """Generate a dry source with random events and pauses.

    Args:
        label: Class.
        rng: Random generator.
        duration_s: Duration in seconds.

    Returns:
        Samples (duration_s * SAMPLE_RATE,), float32, with peak 1.

    Raises:
        ValueError: There is no such class.
    """
    if label not in GENERATORS:
        raise ValueError(f"there is no sound {label!r}: use one of {', '.join(GENERATORS)}")
    n = seconds(duration_s)
    x = GENERATORS[label](rng, max(n, seconds(DURATION_S)))
    if n < len(x):
        # A short clip is cut from a full one around its loudest event, never from a pause.
        latest = int(np.argmax(np.abs(x))) - int(rng.integers(n))
        first = min(max(latest, 0), len(x) - n)
        x = x[first : first + n]
    return peak_normalized(x)


def recording(
    near: str, far: str | None, rng: np.random.Generator, duration_s: float = DURATION_S
) -> Signal:
    """Generate a field recording with random room, noise, microphone, level and zero padding.

    The background is weaker, duller and more reverberant. Its loudest part is audible alone,
    before the foreground starts or after it ends, because steady noise would mask it.

    Args:
        near: Class in the foreground.
        far: Class in the background, if any.
        rng: Random generator.
        duration_s: Duration in seconds.

    Returns:
        Samples (duration_s * SAMPLE_RATE,), float32, |x| <= 1.
    """
    n = end = seconds(duration_s)
    if far is None:
        dry = sound(near, rng, duration_s)
    else:
        dry, pause = _in_part(rng, near, duration_s)
        background = _loudest_within(rng, sound(far, rng, duration_s), pause)
    # A second source keeps sounding after the first one, so only lone ones are padded.
    if far is None and rng.random() < PADDED.get(near, PADDED_ELSE):
        dry, end = _trimmed(rng, dry)
    room = field.sample_room(rng)
    scene = field.placed(rng, dry, room, far=False)
    scene /= np.float32(rms(dry))
    snr_db = rng.uniform(16, 60)
    if far is not None:
        scene += _background(rng, background, room, np.linalg.norm(scene))
        snr_db = rng.uniform(26, 60)
    return _captured(rng, scene, field.transform_size(n, room), n, end, snr_db)


def scene(
    near: Sequence[str],
    far: Sequence[str],
    rng: np.random.Generator,
    duration_s: float = DURATION_S,
) -> Signal:
    """Generate a field recording of several sources.

    Args:
        near: Classes in the foreground, one after another, equally long and loud.
        far: Classes in the background for the whole recording, each 4 to 10 dB weaker.
        rng: Random generator.
        duration_s: Duration in seconds.

    Returns:
        Samples (duration_s * SAMPLE_RATE,), float32, |x| <= 1.
    """
    parts = [sound(label, rng, duration_s / len(near)) for label in near]
    dry = np.concatenate([_faded(part) / np.float32(rms(part)) for part in parts])
    room = field.sample_room(rng)
    whole = field.placed(rng, dry, room, far=False) / np.float32(rms(dry))
    energy = np.linalg.norm(whole)
    for label in far:
        whole += _background(rng, sound(label, rng, duration_s), room, energy)
    n = len(dry)
    return _captured(rng, whole, field.transform_size(n, room), n, n, rng.uniform(26, 60))


def _in_part(
    rng: np.random.Generator, near: str, duration_s: float
) -> tuple[Signal, tuple[int, int]]:
    """A source that sounds during the first or the last part of a recording, and where it pauses.

    The pause is its first sample and one past its last.
    """
    part = _faded(sound(near, rng, duration_s * rng.uniform(*NEAR_SHARE)))
    dry = np.zeros(seconds(duration_s), np.float32)
    n, rest = len(dry), len(dry) - len(part)
    first, pause = (0, (len(part), n)) if rng.random() < 0.5 else (rest, (0, rest))
    dry[first : first + len(part)] = part
    return dry, pause


def _loudest_within(rng: np.random.Generator, dry: Signal, span: tuple[int, int]) -> Signal:
    """The source rotated in time, so that its loudest sample lies within the span's middle half.

    Sources with rare events could otherwise be inaudible while the foreground pauses.
    """
    first, last = span
    to = first + int((last - first) * rng.uniform(0.25, 0.75))
    return np.roll(_faded(dry), to - int(np.argmax(np.abs(dry))))


def _faded(part: Signal) -> Signal:
    """The part without a click where it begins and ends."""
    ramp = np.linspace(0, 1, min(len(part) // 2, seconds(0.01)), dtype=np.float32)
    faded = part.copy()
    faded[: len(ramp)] *= ramp
    faded[-len(ramp) :] *= ramp[::-1]
    return faded


def _background(
    rng: np.random.Generator, dry: Signal, room: field.Room, energy: np.floating
) -> field.Spectrum:
    """The spectrum of a source in the background of one that reaches the microphone with `energy`.

    Parseval: the norm of a spectrum is the energy that reaches the microphone.
    """
    placed = field.placed(rng, dry, room, far=True)
    ratio = energy / max(float(np.linalg.norm(placed)), 1e-9)
    return np.float32(decibels(rng.uniform(-10, -4)) * ratio) * placed


def _trimmed(rng: np.random.Generator, dry: Signal) -> tuple[Signal, int]:
    """The source moved to the start of the clip, and the sample where the clip ends."""
    first, last = field.active_span(dry)
    lead = min(first, seconds(log_uniform(rng, 0.005, 0.5)))
    moved = np.zeros_like(dry)
    kept = dry[first - lead : last]
    moved[: len(kept)] = kept
    return moved, min(len(dry), len(kept) + seconds(log_uniform(rng, 0.01, 0.8)))


def _captured(
    rng: np.random.Generator, scene: field.Spectrum, size: int, n: int, end: int, snr_db: float
) -> Signal:
    """The scene through microphone and recorder: (n,), exact zeros from sample `end` on."""
    equalizer = response(lambda f: field.microphone(rng, f), size)
    floor = field.background(rng, n, size)
    # Parseval again: both norms are the energies in front of the microphone.
    scale = decibels(-snr_db) * np.linalg.norm(scene) / np.linalg.norm(floor)
    spectrum = (scene + np.float32(scale) * floor) * equalizer
    x = field.level(rng, fft.irfft(spectrum, size)[:n].astype(np.float32))
    if end < n:
        fade = min(end, seconds(0.005))
        x[end - fade : end] *= np.linspace(1, 0, fade, dtype=np.float32)
        x[end:] = 0.0
    return np.clip(x, -1.0, 1.0)
