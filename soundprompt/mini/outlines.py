"""Outlines of pictures: what the miniature's ControlNet is shown."""

from __future__ import annotations

import numpy as np
from PIL import Image

STEP = 24  # of 255: the smallest change of any colour, over two pixels, that is an edge


def outline(image: Image.Image) -> Image.Image:
    """White lines on black, of the picture's own size, where any colour changes sharply."""
    pixels = np.asarray(image.convert("RGB"), np.int16)
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = np.abs(padded[1:-1, 2:] - padded[1:-1, :-2]).max(-1)
    down = np.abs(padded[2:, 1:-1] - padded[:-2, 1:-1]).max(-1)
    lines = np.where(np.maximum(across, down) > 2 * STEP, np.uint8(255), np.uint8(0))
    return Image.fromarray(lines).convert("RGB")
