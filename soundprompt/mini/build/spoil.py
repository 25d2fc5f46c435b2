"""Pictures that show nothing clearly: what the judge must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from soundprompt.mini.pictures import SIZE, draw
from soundprompt.mini.pictures.compose import backdrop
from soundprompt.mini.world import CLASSES, View, random_view

Spoiler = Callable[[View, np.random.Generator], Image.Image]


def _other(name: str | None, rng: np.random.Generator) -> str:
    others = [c for c in CLASSES if c != name]
    return others[rng.integers(len(others))]


def _blurred(view: View, rng: np.random.Generator) -> Image.Image:
    return draw(view, rng).filter(ImageFilter.GaussianBlur(rng.uniform(3.5, 7)))


def _noisy(view: View, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(draw(view, rng), float)
    grain = int(rng.choice([1, 2, 4]))
    cells = SIZE // grain
    noise = rng.normal(0, 1, (cells, cells, 3)).repeat(grain, 0).repeat(grain, 1)
    share = rng.uniform(0.65, 0.9)
    mixed = (1 - share) * pixels + share * (128 + 90 * noise)
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def _blended(view: View, rng: np.random.Generator) -> Image.Image:
    """Two near things in one place, neither of them there."""
    seed = rng.integers(2**63)
    rival = _other(view.near, rng)
    other = random_view(rng, near=rival, far_share=0)
    other = replace(other, far=None if view.far == rival else view.far, scene=view.scene)
    pair = [draw(v, np.random.default_rng(seed)) for v in (view, other)]
    return Image.blend(pair[0], pair[1], rng.uniform(0.4, 0.6))


def _halves(view: View, rng: np.random.Generator) -> Image.Image:
    """The left of one picture and the right of another."""
    single = replace(view, far=None)
    left = draw(single, rng)
    right = draw(random_view(rng, near=_other(view.near, rng), far_share=0), rng)
    middle = SIZE // 2
    left.paste(right.crop((middle, 0, SIZE, SIZE)), (middle, 0))
    return left


def _shuffled(view: View, rng: np.random.Generator) -> Image.Image:
    block = int(rng.choice([8, 16]))
    n = SIZE // block
    pixels = np.asarray(draw(view, rng)).reshape(n, block, n, block, 3).swapaxes(1, 2)
    blocks = pixels.reshape(n * n, block, block, 3)[rng.permutation(n * n)]
    mixed = blocks.reshape(n, n, block, block, 3).swapaxes(1, 2).reshape(SIZE, SIZE, 3)
    return Image.fromarray(np.ascontiguousarray(mixed))


def _empty(view: View, rng: np.random.Generator) -> Image.Image:
    """Sky and ground with nothing on them."""
    return backdrop(view.scene, rng).resize((SIZE, SIZE), Image.Resampling.BOX)


def _mud(view: View, rng: np.random.Generator) -> Image.Image:
    """What an untrained generator draws: smooth blobs in the picture's own colours."""
    image = draw(view, rng)
    tiny = image.resize((int(rng.integers(4, 9)),) * 2, Image.Resampling.BOX)
    pixels = np.asarray(tiny, float)
    mixed = pixels + rng.normal(0, rng.uniform(0, 25), pixels.shape)
    blobs = Image.fromarray(mixed.clip(0, 255).astype(np.uint8))
    return blobs.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


WHOLE: tuple[Spoiler, ...] = (_blurred, _noisy, _blended, _halves, _shuffled, _empty, _mud)


def spoiled(view: View, rng: np.random.Generator) -> Image.Image:
    """A picture in which the near thing cannot be made out."""
    return WHOLE[rng.integers(len(WHOLE))](view, rng)


def ghostly(view: View, rng: np.random.Generator) -> Image.Image:
    """A picture whose near thing is clear and whose far thing is two at once.

    Raises:
        ValueError: the view has no far thing.
    """
    if view.far is None:
        raise ValueError("a ghostly far thing needs a view with a far thing")
    others = [c for c in CLASSES if c not in (view.near, view.far)]
    other = replace(view, far=others[rng.integers(len(others))])
    seed = rng.integers(2**63)
    pair = [draw(v, np.random.default_rng(seed)) for v in (view, other)]
    return Image.blend(pair[0], pair[1], rng.uniform(0.4, 0.6))
