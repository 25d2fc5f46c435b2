"""Rendering of a view: backdrop of the time of day, small background, large foreground."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from soundprompt.mini.pictures import creatures, things
from soundprompt.mini.pictures.canvas import Canvas, Color
from soundprompt.mini.world import View

SIZE = 64
SUPERSAMPLING = 4  # rendered four times as large, then reduced, because Pillow does not antialias

RENDERERS: dict[str, Callable[[Canvas, Color, np.random.Generator], None]] = {
    "dog": creatures.dog,
    "rooster": creatures.rooster,
    "crying baby": creatures.crying_baby,
    "sneezing": creatures.sneezing,
    "rain": things.rain,
    "sea waves": things.sea_waves,
    "clock tick": things.clock_tick,
    "helicopter": things.helicopter,
    "chainsaw": things.chainsaw,
    "crackling fire": things.crackling_fire,
}
COLOR_VALUES: dict[str | None, Color] = {
    "red": (218, 46, 48),
    "yellow": (246, 200, 56),
    "green": (58, 168, 84),
    "blue": (52, 100, 214),
    "white": (240, 238, 232),
    "brown": (140, 88, 50),
    None: (128, 128, 128),
}
# Background classes have a fixed color, which captions do not name.
FAR_COLORS = {
    "dog": "brown",
    "crying baby": "yellow",
    "clock tick": "red",
    "sneezing": "blue",
    "helicopter": "yellow",
    "chainsaw": "red",
    "rooster": "white",
}
# Sky at the top, sky at the horizon, ground at the horizon, ground at the bottom.
SKIES: dict[str, tuple[Color, Color, Color, Color]] = {
    "day": ((118, 190, 244), (205, 234, 250), (150, 204, 108), (110, 170, 78)),
    "dusk": ((120, 70, 130), (250, 156, 92), (134, 104, 82), (92, 70, 66)),
    "night": ((14, 18, 48), (34, 44, 92), (30, 48, 58), (18, 30, 40)),
}


def _gradient(top: Color, bottom: Color, rows: int) -> np.ndarray:
    return np.linspace(top, bottom, rows)[:, None, :]


def backdrop(scene: str, rng: np.random.Generator) -> Image.Image:
    """Render the sky and the ground of a time of day, SUPERSAMPLING times as large as an image.

    Args:
        scene: Time of day.
        rng: Random generator.
    """
    side = SIZE * SUPERSAMPLING
    horizon = int(side * rng.uniform(0.6, 0.7))
    sky_top, sky_low, ground_top, ground_low = SKIES[scene]
    rows = np.concatenate(
        [_gradient(sky_top, sky_low, horizon), _gradient(ground_top, ground_low, side - horizon)]
    )
    pixels = np.broadcast_to(rows * rng.uniform(0.95, 1.05), (side, side, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    _render_sky(image, scene, horizon, rng)
    return image


def _render_sky(image: Image.Image, scene: str, horizon: int, rng: np.random.Generator) -> None:
    """Render sun, low sun, or moon and stars; they must stay visible behind the foreground."""
    side = image.width
    whole = Canvas(image, (side / 2, side / 2), side)
    x = rng.uniform(0.1, 0.9)
    if scene == "day":
        whole.ellipse((x, rng.uniform(0.08, 0.16)), 0.07, 0.07, (255, 236, 110), 0)
    elif scene == "dusk":
        whole.ellipse((x, horizon / side - 0.02), 0.11, 0.11, (255, 216, 120), 0)
        ground = image.crop((0, side - 4, side, side - 3)).resize((side, side - horizon))
        image.paste(ground, (0, horizon))
    else:
        for sx, sy in zip(rng.uniform(0, 1, 12), rng.uniform(0, 0.55, 12), strict=True):
            whole.ellipse((sx, sy), 0.008, 0.008, (230, 232, 255), 0)
        whole.ellipse((x, rng.uniform(0.1, 0.16)), 0.065, 0.065, (240, 240, 214), 0)


def _tint(color: Color, rng: np.random.Generator) -> Color:
    jitter = np.clip(np.asarray(color) * rng.uniform(0.93, 1.07) + rng.uniform(-6, 6, 3), 0, 255)
    red, green, blue = (int(v) for v in jitter)
    return red, green, blue


def _render_class(
    image: Image.Image,
    name: str,
    color: str | None,
    at: tuple[float, float],
    size: float,
    rng: np.random.Generator,
) -> None:
    side = image.width
    canvas = Canvas(image, (at[0] * side, at[1] * side), size * side)
    RENDERERS[name](canvas, _tint(COLOR_VALUES[color], rng), rng)


def render(view: View, rng: np.random.Generator) -> Image.Image:
    """Render a view.

    Args:
        view: View to render.
        rng: Random generator of positions, sizes and shades.

    Returns:
        An RGB image of SIZE x SIZE pixels.
    """
    # Separate streams, so that a different background does not change the foreground.
    layout_rng, backdrop_rng, far_rng, near_rng = (
        np.random.default_rng(s) for s in rng.integers(2**63, size=4)
    )
    image = backdrop(view.scene, backdrop_rng)
    if view.far is None:
        at = layout_rng.uniform(0.42, 0.58), layout_rng.uniform(0.56, 0.62)
        _render_class(image, view.near, view.color, at, layout_rng.uniform(0.66, 0.74), near_rng)
    else:
        left = layout_rng.random() < 0.5
        x_near = layout_rng.uniform(0.64, 0.67) if left else layout_rng.uniform(0.33, 0.36)
        x_far = layout_rng.uniform(0.17, 0.2) if left else layout_rng.uniform(0.8, 0.83)
        at = x_far, layout_rng.uniform(0.3, 0.38)
        _render_class(image, view.far, FAR_COLORS.get(view.far), at, 0.32, far_rng)
        at = x_near, layout_rng.uniform(0.6, 0.64)
        _render_class(image, view.near, view.color, at, layout_rng.uniform(0.6, 0.64), near_rng)
    return image.resize((SIZE, SIZE), Image.Resampling.BOX)
