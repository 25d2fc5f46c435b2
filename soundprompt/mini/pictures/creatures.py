"""Rendering of the four classes with a face: dog, rooster, baby and sneezing person."""

from __future__ import annotations

import numpy as np

from soundprompt.mini.pictures.canvas import INK, Canvas, Color, shade

SKINS: tuple[Color, ...] = ((255, 219, 184), (229, 178, 133), (160, 110, 78))
WHITE: Color = (250, 250, 250)


def dog(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """A dog in profile, mouth open, tail up."""
    dark = shade(color, 0.72)
    tail = rng.uniform(0.12, 0.28)
    c.line([(0.16, 0.56), (0.08, 0.44), (0.09, tail)], INK, 0.11)
    c.line([(0.16, 0.56), (0.08, 0.44), (0.09, tail + 0.02)], color, 0.07)
    for x in (0.2, 0.31, 0.56, 0.66):
        c.polygon([(x, 0.66), (x + 0.09, 0.66), (x + 0.09, 0.95), (x, 0.95)], dark)
    c.ellipse((0.42, 0.58), 0.29, 0.17, color)
    c.polygon([(0.55, 0.5), (0.62, 0.24), (0.82, 0.28), (0.74, 0.62)], color)
    c.polygon([(0.78, 0.24), (0.99, 0.27), (0.99, 0.36), (0.84, 0.37)], color)
    c.polygon([(0.8, 0.38), (0.94, 0.47), (0.78, 0.47)], (200, 60, 60))
    c.ellipse((0.72, 0.28), 0.14, 0.14, color)
    c.polygon([(0.6, 0.16), (0.72, 0.19), (0.66, 0.48), (0.55, 0.42)], dark)
    c.ellipse((0.97, 0.28), 0.035, 0.03, INK)
    c.ellipse((0.77, 0.24), 0.028, 0.028, INK)


def rooster(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """A rooster in profile with comb, wattle and a fan of tail feathers."""
    for i, x in enumerate(np.linspace(0.02, 0.2, 4) + rng.uniform(-0.02, 0.02)):
        feather = [(0.3, 0.62), (x, 0.42 - 0.09 * i), (x + 0.1, 0.28 - 0.06 * i), (0.38, 0.5)]
        c.polygon(feather, ((30, 90, 80), (20, 60, 90), (40, 110, 70), (30, 50, 70))[i])
    for x in (0.45, 0.56):
        c.line([(x, 0.8), (x, 0.95), (x + 0.09, 0.95)], (225, 150, 30), 0.04)
    c.ellipse((0.48, 0.64), 0.24, 0.2, color)
    c.polygon([(0.52, 0.6), (0.62, 0.24), (0.8, 0.26), (0.72, 0.66)], color)
    c.ellipse((0.71, 0.25), 0.11, 0.11, color)
    comb = [
        (0.6, 0.19),
        (0.6, 0.05),
        (0.67, 0.11),
        (0.71, 0.01),
        (0.76, 0.1),
        (0.84, 0.05),
        (0.8, 0.2),
    ]
    c.polygon(comb, (222, 30, 40))
    c.polygon([(0.79, 0.2), (0.98, 0.2), (0.8, 0.27)], (250, 180, 40))
    c.polygon([(0.79, 0.29), (0.94, 0.34), (0.78, 0.33)], (250, 180, 40))
    c.ellipse((0.77, 0.4), 0.04, 0.07, (222, 30, 40))
    c.ellipse((0.74, 0.22), 0.025, 0.025, INK)
    c.polygon([(0.34, 0.6), (0.56, 0.58), (0.48, 0.76)], shade(color, 0.75))


def crying_baby(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """A baby's round face with a wide open mouth and streams of tears."""
    skin = SKINS[rng.integers(3)]
    c.polygon([(0.2, 0.98), (0.26, 0.78), (0.74, 0.78), (0.8, 0.98)], color)
    for x in (0.12, 0.88):
        c.ellipse((x, 0.47), 0.08, 0.09, skin)
    c.ellipse((0.5, 0.46), 0.39, 0.38, skin)
    c.line(c.curve([(0.48, 0.1), (0.5, -0.04), (0.62, 0.02), (0.54, 0.1)]), (90, 55, 30), 0.05)
    for side in (-1, 1):
        x = 0.5 + side * 0.17
        c.line([(x - 0.09, 0.33 + side * 0.03), (x + 0.09, 0.33 - side * 0.03)], INK, 0.04)
        c.line(c.curve([(x - 0.08, 0.41), (x, 0.48), (x + 0.08, 0.41)]), INK, 0.045)
        tear = rng.uniform(0.62, 0.72)
        c.line([(x + side * 0.06, 0.48), (x + side * 0.1, tear)], (60, 150, 245), 0.08)
        c.ellipse((x + side * 0.1, tear + 0.03), 0.05, 0.06, (60, 150, 245), 0)
    c.ellipse((0.5, 0.64), 0.14, rng.uniform(0.11, 0.14), (120, 20, 35))
    c.ellipse((0.5, 0.71), 0.08, 0.05, (235, 110, 120), 0)
    c.polygon([(0.3, 0.81), (0.7, 0.81), (0.62, 0.93), (0.38, 0.93)], shade(color, 1.15), 0.01)


def sneezing(c: Canvas, color: Color, rng: np.random.Generator) -> None:
    """Someone in profile, bent forward, with a burst of droplets before the face."""
    skin = SKINS[rng.integers(3)]
    hair = ((60, 40, 30), (30, 25, 30), (200, 150, 60), (150, 70, 30))[rng.integers(4)]
    c.polygon([(0.0, 0.98), (0.04, 0.66), (0.2, 0.54), (0.42, 0.64), (0.5, 0.98)], color)
    c.polygon([(0.2, 0.5), (0.4, 0.5), (0.4, 0.68), (0.22, 0.66)], skin, 0)
    c.ellipse((0.3, 0.32), 0.24, 0.25, skin)
    c.polygon([(0.5, 0.28), (0.65, 0.37), (0.51, 0.42)], skin)
    crown = c.curve([(0.1, 0.48), (-0.08, 0.02), (0.3, -0.04), (0.52, 0.16), (0.44, 0.2)])
    c.polygon([*crown, (0.3, 0.18), (0.2, 0.44)], hair)
    c.line([(0.38, 0.28), (0.47, 0.31)], INK, 0.035)
    c.ellipse((0.47, 0.49), 0.06, 0.05, (130, 25, 40))
    c.polygon([(0.56, 0.45), (0.99, 0.28), (0.93, 0.5), (0.99, 0.74)], (205, 238, 250), 0.012)
    for _ in range(9):
        along, across = rng.uniform(0.15, 1), rng.uniform(-0.8, 0.8)
        at = (0.56 + 0.4 * along, 0.48 + 0.2 * along * across)
        c.ellipse(at, 0.03, 0.03, (70, 165, 225), 0)
