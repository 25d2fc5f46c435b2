"""Images as a UNet's autoencoder takes them: opened, resized with their aspect, cropped."""

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
    """An image cannot be used; the message says which and why."""


def open_image(image: Any) -> Image.Image:
    """An image in RGB, turned as its EXIF says, on white where it is transparent.

    Args:
        image: a PIL image, a path, or a mapping with "bytes" or "path", as `datasets` has them.

    Raises:
        ImageError: it cannot be read.
    """
    name = "the image"
    if isinstance(image, Mapping):
        held = image.get("bytes")
        image = io.BytesIO(held) if held is not None else image.get("path")
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
    turned = ImageOps.exif_transpose(opened)
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        white = Image.new("RGBA", turned.size, "white")
        return Image.alpha_composite(white, turned.convert("RGBA")).convert("RGB")
    return turned.convert("RGB")


def crop_square(image: Image.Image, size: int, at: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """A square of an image: its shorter side becomes `size`, the longer one is cut.

    Args:
        image: of any size and aspect.
        size: pixels of the square's side.
        at: which part is kept where there is more, from (0, 0), left and top, to (1, 1).
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
    """The squares that training sees of an image.

    Args:
        image: of any size and aspect.
        size: pixels of a square's side.
        crops: how many: the first is the middle, the others lie anywhere.
        flip: every square mirrored too.
        rng: says where.
    """
    middle = [(0.5, 0.5)]
    places = middle + [(rng.random(), rng.random()) for _ in range(num_crops - 1)]
    cropped = [crop_square(image, size, place) for place in places]
    return cropped + [ImageOps.mirror(crop) for crop in cropped] if mirror else cropped


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB image (3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1
