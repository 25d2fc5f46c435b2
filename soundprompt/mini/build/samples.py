"""Random batches of views and images for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from soundprompt.mini.pictures import SIZE, render
from soundprompt.mini.source_hash import source_hash
from soundprompt.mini.world import View, random_view

# First number of the seeds of each stage, so that stages and checks use different images.
SEEDS = {
    "vae": 1, "pool": 2, "clip": 3, "image_classifier": 4, "unet": 5, "sounds": 6, "controlnet": 7,
    "check": 100,
}  # fmt: skip


def rng_of(purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of a purpose (a key of SEEDS) and, say, a step."""
    return np.random.default_rng([SEEDS[purpose], *numbers])


def to_tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    """Images as (B, 3, SIZE, SIZE) float32 in [-1, 1], the range of Stable Diffusion's VAE."""
    pixels = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def render_batch(rng: np.random.Generator, n: int) -> tuple[list[View], list[Image.Image]]:
    """Sample views and render their images.

    Args:
        rng: Random generator.
        n: Number of views.
    """
    views = [random_view(rng) for _ in range(n)]
    return views, [render(view, rng) for view in views]


def image_pool(folder: Path, n: int) -> tuple[list[View], torch.Tensor]:
    """Load a fixed set of views and images, rendered once and cached on disk.

    Args:
        folder: Directory of the cache.
        n: Number of views.

    Returns:
        The views, and their images (n, 3, SIZE, SIZE), uint8.
    """
    path = folder / f"pool-{source_hash('pictures', 'world')}-{n}.npz"
    if not path.exists():
        views, images = render_batch(rng_of("pool"), n)
        folder.mkdir(parents=True, exist_ok=True)
        table = np.array([[v.near, v.far or "", v.scene, v.color or ""] for v in views])
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, views=table, pixels=np.stack([np.asarray(i) for i in images]))
        partial.replace(path)  # atomic, so that an interrupted write leaves no partial file
    data = np.load(path)
    views = [View(near, far or None, scene, color or None) for near, far, scene, color in
             data["views"].tolist()]  # fmt: skip
    pixels = torch.from_numpy(data["pixels"]).permute(0, 3, 1, 2)
    assert pixels.shape[1:] == (3, SIZE, SIZE)
    return views, pixels
