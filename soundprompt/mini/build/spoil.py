"""Corrupted images that the image classifier must predict as "unclear"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from soundprompt.mini.pictures import SIZE, render
from soundprompt.mini.pictures.compose import backdrop
from soundprompt.mini.world import CLASSES, View, random_view

Corruption = Callable[[View, np.random.Generator], Image.Image]


def _other(name: str | None, rng: np.random.Generator) -> str:
    others = [c for c in CLASSES if c != name]
    return others[rng.integers(len(others))]


def _blurred(view: View, rng: np.random.Generator) -> Image.Image:
    return render(view, rng).filter(ImageFilter.GaussianBlur(rng.uniform(3.5, 7)))


def _noisy(view: View, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(render(view, rng), float)
    grain = int(rng.choice([1, 2, 4]))
    cells = SIZE // grain
    noise = rng.normal(0, 1, (cells, cells, 3)).repeat(grain, 0).repeat(grain, 1)
    share = rng.uniform(0.65, 0.9)
    mixed = (1 - share) * pixels + share * (128 + 90 * noise)
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _blended(view: View, rng: np.random.Generator) -> Image.Image:
    """Blend two foregrounds in one place."""
    seed = rng.integers(2**63)
    rival = _other(view.near, rng)
    other = random_view(rng, near=rival, far_prob=0)
    other = replace(other, far=None if view.far == rival else view.far, scene=view.scene)
    pair = [render(v, np.random.default_rng(seed)) for v in (view, other)]
    return Image.blend(pair[0], pair[1], rng.uniform(0.4, 0.6))


def _split_halves(view: View, rng: np.random.Generator) -> Image.Image:
    """Combine the left half of one image and the right half of another."""
    single = replace(view, far=None)
    left = render(single, rng)
    right = render(random_view(rng, near=_other(view.near, rng), far_prob=0), rng)
    middle = SIZE // 2
    left.paste(right.crop((middle, 0, SIZE, SIZE)), (middle, 0))
    return left


def _shuffled(view: View, rng: np.random.Generator) -> Image.Image:
    block = int(rng.choice([8, 16]))
    n = SIZE // block
    pixels = np.asarray(render(view, rng)).reshape(n, block, n, block, 3).swapaxes(1, 2)
    blocks = pixels.reshape(n * n, block, block, 3)[rng.permutation(n * n)]
    mixed = blocks.reshape(n, n, block, block, 3).swapaxes(1, 2).reshape(SIZE, SIZE, 3)
    return Image.fromarray(np.ascontiguousarray(mixed))


def _empty(view: View, rng: np.random.Generator) -> Image.Image:
    """Render the backdrop only."""
    return backdrop(view.scene, rng).resize((SIZE, SIZE), Image.Resampling.BOX)


def _blobs(view: View, rng: np.random.Generator) -> Image.Image:
    """Render smooth blobs in the colors of the image, like an untrained generator."""
    image = render(view, rng)
    tiny = image.resize((int(rng.integers(4, 9)),) * 2, Image.Resampling.BOX)
    pixels = np.asarray(tiny, float)
    mixed = pixels + rng.normal(0, rng.uniform(0, 25), pixels.shape)
    blobs = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
    return blobs.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


CORRUPTIONS: tuple[Corruption, ...] = (
    _blurred,
    _noisy,
    _blended,
    _split_halves,
    _shuffled,
    _empty,
    _blobs,
)


def corrupt_near(view: View, rng: np.random.Generator) -> Image.Image:
    """Render an image with an unrecognizable foreground.

    Args:
        view: View to corrupt.
        rng: Random generator.
    """
    return CORRUPTIONS[rng.integers(len(CORRUPTIONS))](view, rng)


def corrupt_far(view: View, rng: np.random.Generator) -> Image.Image:
    """Render an image with a clear foreground and a blend of two backgrounds.

    Args:
        view: View to corrupt.
        rng: Random generator.

    Raises:
        ValueError: The view has no background.
    """
    if view.far is None:
        raise ValueError("view.far is None: give a view with a background")
    others = [c for c in CLASSES if c not in (view.near, view.far)]
    other = replace(view, far=others[rng.integers(len(others))])
    seed = rng.integers(2**63)
    pair = [render(v, np.random.default_rng(seed)) for v in (view, other)]
    return Image.blend(pair[0], pair[1], rng.uniform(0.4, 0.6))
