"""Rendering of the six classes without a face: rain, sea, clock, helicopter, chainsaw, fire."""

from __future__ import annotations

import numpy as np

from soundprompt.mini.pictures.canvas import INK, Canvas, Color, shade

METAL: Color = (190, 196, 204)


def rain(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """A dark cloud with slanting streaks of rain."""
    slant = rng.uniform(0.06, 0.14)
    for row, y in enumerate((0.46, 0.63, 0.8)):
        for x in np.linspace(0.14, 0.9, 6) - 0.06 * (row % 2) + rng.uniform(-0.02, 0.02, 6):
            c.line([(x, y), (x - slant, y + 0.15)], (45, 125, 235), 0.05)
    cloud = (108, 116, 134)
    blobs = ((0.2, 0.3, 0.17), (0.42, 0.2, 0.2), (0.63, 0.22, 0.18), (0.81, 0.31, 0.16))
    for x, y, r in blobs:
        c.ellipse((x, y), r, r * 0.9, cloud)
    c.polygon([(0.2, 0.25), (0.8, 0.25), (0.84, 0.44), (0.16, 0.44)], cloud, 0)
    c.line([(0.16, 0.45), (0.85, 0.45)], INK, 0.025)
    c.ellipse((0.4, 0.16), 0.1, 0.06, shade(cloud, 1.25), 0)


def sea_waves(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """Three rows of waves, the foremost curling over, with white foam."""
    for row, y in enumerate((0.36, 0.54, 0.72)):
        water = shade((28, 120, 190), 1.12 - 0.14 * row)
        phase, n = rng.uniform(0, 1), 3
        x = np.linspace(0, 1, 40)
        crest = np.abs(np.sin(np.pi * (x * n + phase)))
        top = [(float(a), float(y - 0.14 * (1 - b))) for a, b in zip(x, crest, strict=True)]
        c.polygon([*top, (1.0, 0.98), (0.0, 0.98)], water)
        c.line([(a, b + 0.02) for a, b in top], (245, 252, 255), 0.055)


def clock_tick(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """A round alarm clock with bells, its hands at any hour."""
    for x in (0.26, 0.74):
        c.line([(x, 0.85), (x + np.sign(x - 0.5) * 0.09, 0.97)], INK, 0.06)
        c.ellipse((x, 0.13), 0.14, 0.1, shade(color, 0.8))
    c.line([(0.5, 0.12), (0.5, 0.04)], INK, 0.06)
    c.ellipse((0.5, 0.52), 0.42, 0.42, color)
    c.ellipse((0.5, 0.52), 0.32, 0.32, (255, 252, 240))
    for hour in range(12):
        angle = hour * np.pi / 6
        at = (0.5 + 0.265 * np.sin(angle), 0.52 - 0.265 * np.cos(angle))
        c.ellipse(at, 0.018, 0.018, INK, 0)
    for length, width in ((0.15, 0.05), (0.24, 0.035)):
        angle = rng.uniform(0, 2 * np.pi)
        tip = (0.5 + length * np.sin(angle), 0.52 - length * np.cos(angle))
        c.line([(0.5, 0.52), tip], INK, width)
    c.ellipse((0.5, 0.52), 0.035, 0.035, INK, 0)


def helicopter(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """A helicopter from the side: cabin, tail boom, rotor and skids."""
    tilt = rng.uniform(-0.02, 0.02)
    c.polygon([(0.04, 0.4), (0.52, 0.42), (0.52, 0.58), (0.06, 0.48)], shade(color, 0.85))
    c.polygon([(0.0, 0.24), (0.1, 0.24), (0.14, 0.48), (0.05, 0.5)], shade(color, 0.7))
    c.ellipse((0.06, 0.42), 0.075, 0.075, METAL)
    c.ellipse((0.66, 0.54), 0.29, 0.21, color)
    glass = [(0.7, 0.36), (0.86, 0.42), (0.94, 0.54), (0.7, 0.56)]
    c.polygon(glass, (195, 232, 250))
    c.line([(0.64, 0.34), (0.64, 0.2)], INK, 0.06)
    c.line([(0.26, 0.2 + tilt), (1.0, 0.2 - tilt)], INK, 0.065)
    c.line([(0.28, 0.2 + tilt), (0.98, 0.2 - tilt)], METAL, 0.03)
    for x in (0.56, 0.76):
        c.line([(x, 0.72), (x, 0.86)], INK, 0.04)
    c.line([(0.42, 0.87), (0.9, 0.87), (0.95, 0.82)], INK, 0.05)


def chainsaw(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """A chainsaw from the side: motor with handle, toothed bar to the right."""
    lift = rng.uniform(-0.04, 0.04)
    teeth = [(0.46, 0.5)]
    for x in np.linspace(0.48, 0.94, 9):
        teeth += [(x, 0.43 + lift), (x + 0.028, 0.5 + lift * 0.6)]
    bottom = [(2 * 0.47 + 0.52 - a + 0.02, 1.16 - b) for a, b in teeth]
    c.polygon([*teeth, (1.0, 0.58 + lift), *bottom], shade(METAL, 0.62), 0.012)
    c.polygon([(0.46, 0.51), (0.93, 0.51), (0.97, 0.58), (0.93, 0.65), (0.46, 0.65)], METAL, 0.012)
    c.line(c.curve([(0.42, 0.46), (0.46, 0.14), (0.24, 0.14), (0.24, 0.4)]), INK, 0.075)
    c.line([(0.08, 0.46), (0.01, 0.56), (0.03, 0.74), (0.16, 0.78)], INK, 0.075)
    c.polygon([(0.1, 0.38), (0.5, 0.38), (0.54, 0.8), (0.1, 0.8)], color)
    c.polygon([(0.16, 0.46), (0.34, 0.46), (0.34, 0.58), (0.16, 0.58)], shade(color, 0.6), 0.012)
    c.ellipse((0.42, 0.68), 0.065, 0.065, (50, 50, 58))


def crackling_fire(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """Flames over two crossed logs, with sparks."""
    for size, fill in ((1.0, (232, 62, 24)), (0.7, (252, 150, 30)), (0.4, (255, 232, 100))):
        half, base = 0.34 * size, 0.86
        tips = rng.uniform(-0.04, 0.04, 3)
        top = base - 0.8 * size
        flame = [
            (0.5 - half, base),
            (0.5 - 1.1 * half, base - 0.32 * size),
            (0.5 - 0.75 * half + tips[0], base - 0.58 * size),
            (0.5 - 0.35 * half, base - 0.42 * size),
            (0.5 + tips[1], top),
            (0.5 + 0.45 * half, base - 0.44 * size),
            (0.5 + 0.8 * half + tips[2], base - 0.62 * size),
            (0.5 + 1.1 * half, base - 0.3 * size),
            (0.5 + half, base),
        ]
        c.polygon(flame, fill, 0.02 if size == 1.0 else 0)
    for ends in (((0.1, 0.95), (0.9, 0.8)), ((0.1, 0.8), (0.9, 0.95))):
        c.line(ends, INK, 0.13)
        c.line(ends, (125, 76, 40), 0.09)
    for x, y in zip(rng.uniform(0.1, 0.9, 5), rng.uniform(0.0, 0.35, 5), strict=True):
        c.ellipse((x, y), 0.022, 0.022, (255, 190, 60), 0)
