"""Image loading, resizing and cropping for the autoencoder."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from align.registry import first_line


class ImageError(ValueError):
    """An image cannot be used; the message names the image and the reason."""


def open_image(image: Any) -> Image.Image:
    """Open an image as RGB, apply its EXIF orientation and put transparent images on white.

    Args:
        image: PIL image, path, or mapping with "bytes" or "path" as in `datasets`.

    Raises:
        ImageError: If the image cannot be read.
    """
    name = "the image"
    if isinstance(image, Mapping):
        data = image.get("bytes")
        image = io.BytesIO(data) if data is not None else image.get("path")
    if isinstance(image, str | os.PathLike):
        name = str(image)
        if os.path.isfile(image) and not os.path.getsize(image):
            raise ImageError(f"{name} is empty (0 bytes): download it again")
    try:
        opened = image if isinstance(image, Image.Image) else Image.open(image)
        opened.load()
    except (OSError, SyntaxError, ValueError, AttributeError, TypeError) as error:
        reason = first_line(error)
        raise ImageError(f"{name} cannot be read as an image ({reason})") from error
    upright = ImageOps.exif_transpose(opened)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright.convert("RGBA")).convert("RGB")
    return upright.convert("RGB")


def crop_square(image: Image.Image, size: int, at: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Resize the shorter side of an image to `size` and crop the longer side.

    Args:
        image: Image of any size and aspect ratio.
        size: Side of the square in pixels.
        at: Position of the crop, from (0, 0) (left, top) to (1, 1).
    """
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = round((width - size) * at[0]), round((height - size) * at[1])
    return image.crop((left, top, left + size, top + size))


def make_crops(
    image: Image.Image, size: int, num_crops: int, mirror: bool, rng: np.random.Generator
) -> list[Image.Image]:
    """Return the crops of an image: the center crop, then random crops.

    Args:
        image: Image of any size and aspect ratio.
        size: Side of a crop in pixels.
        num_crops: Number of crops.
        mirror: Add the horizontally flipped crops.
        rng: Generator of the random positions.
    """
    center = [(0.5, 0.5)]
    positions = center + [(rng.random(), rng.random()) for _ in range(num_crops - 1)]
    cropped = [crop_square(image, size, position) for position in positions]
    return cropped + [ImageOps.mirror(crop) for crop in cropped] if mirror else cropped


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Convert an RGB image to a tensor (3, H, W) in [-1, 1].

    Args:
        image: RGB image.
    """
    pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1
