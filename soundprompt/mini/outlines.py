"""Outlines of images, the control images of the `mini` ControlNet."""

from __future__ import annotations

import numpy as np
from PIL import Image

STEP = 24  # minimum change of any channel (0 to 255) over two pixels at an edge


def outline(image: Image.Image) -> Image.Image:
    """Compute the outlines of an image.

    Args:
        image: Image of any size.

    Returns:
        Image of the same size, white where any channel changes sharply and black elsewhere.
    """
    pixels = np.asarray(image.convert("RGB"), np.int16)
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = np.abs(padded[1:-1, 2:] - padded[1:-1, :-2]).max(-1)
    down = np.abs(padded[2:, 1:-1] - padded[:-2, 1:-1]).max(-1)
    lines = np.where(np.maximum(across, down) > 2 * STEP, np.uint8(255), np.uint8(0))
    return Image.fromarray(lines).convert("RGB")
