"""Canvas with unit coordinates on a part of an image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]
INK: Color = (30, 26, 36)


def shade(color: Color, factor: float) -> Color:
    """Make a color darker or lighter.

    Args:
        color: RGB color.
        factor: Below 1 for darker, above 1 for lighter.
    """
    red, green, blue = (int(np.clip(c * factor, 0, 255)) for c in color)
    return red, green, blue


class Canvas:
    """A square part of an image, addressed by x and y from 0 to 1 (y down).

    Args:
        image: Image to render on.
        center: Center of the canvas in pixels.
        side: Width and height of the canvas in pixels.
    """

    def __init__(self, image: Image.Image, center: Point, side: float) -> None:
        self._draw = ImageDraw.Draw(image)
        self._center, self._side = center, side

    def _at(self, point: Point) -> Point:
        cx, cy = self._center
        return cx + (point[0] - 0.5) * self._side, cy + (point[1] - 0.5) * self._side

    def _width(self, width: float) -> int:
        return max(1, round(width * self._side))

    def polygon(self, points: Sequence[Point], fill: Color, edge: float = 0.02) -> None:
        """A filled polygon with an inked edge."""
        shape = [self._at(p) for p in points]
        self._draw.polygon(shape, fill=fill)
        if edge:
            ring = [*shape, shape[0], shape[1]]
            self._draw.line(ring, fill=INK, width=self._width(edge), joint="curve")

    def ellipse(self, at: Point, rx: float, ry: float, fill: Color, edge: float = 0.02) -> None:
        """A filled ellipse around a point."""
        x, y = self._at(at)
        box = (x - rx * self._side, y - ry * self._side, x + rx * self._side, y + ry * self._side)
        outline = INK if edge else None
        self._draw.ellipse(box, fill=fill, outline=outline, width=self._width(edge) if edge else 1)

    def line(self, points: Sequence[Point], fill: Color, width: float = 0.03) -> None:
        """A polyline with round joints."""
        shape = [self._at(p) for p in points]
        self._draw.line(shape, fill=fill, width=self._width(width), joint="curve")

    def curve(self, points: Sequence[Point], n: int = 12) -> list[Point]:
        """Points along the Bezier curve that the given points control."""
        t = np.linspace(0, 1, n)[:, None]
        level = [np.asarray(p, float)[None] * np.ones_like(t) for p in points]
        while len(level) > 1:
            level = [a * (1 - t) + b * t for a, b in pairwise(level)]
        return [(float(x), float(y)) for x, y in level[0]]
