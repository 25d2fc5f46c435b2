"""FID, KID, IIS, AIC and AIS on known cases, with the mini CLIP."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse.evaluation.clip_metrics import (
    CLIPFeatures,
    ais,
    clip_distances,
    iis_and_aic,
    to_uint8,
    win_rate,
)
from soundprompt.mini.captions import class_caption
from soundprompt.mini.pictures import render
from soundprompt.mini.world import CLASSES, random_view


def test_win_rate() -> None:
    found = win_rate(torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 4.0], [9.0, 9.0, 1.0]]))
    assert found.tolist() == pytest.approx([1.0, 0.25, 0.0])
    assert win_rate(torch.ones(5, 5)).tolist() == pytest.approx([0.5] * 5)
    noise = torch.rand(400, 400, generator=torch.Generator().manual_seed(0))
    assert win_rate(noise).mean().item() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="at least 2 images"):
        win_rate(torch.ones(1, 1))


class HalfMeans(torch.nn.Module):
    """Two features of an image: the means of its halves."""

    num_features = 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        halves = images.float().mean(1).chunk(2, dim=-1)
        return torch.stack([half.mean((1, 2)) for half in halves], 1)


def shades(count: int, base: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    pixels = [np.repeat(rng.integers(0, 40, (2, 1, 1)) + base, 8, 0).repeat(16, 1).repeat(3, 2)
              for _ in range(count)]  # fmt: skip
    return [Image.fromarray(p.transpose(1, 0, 2).astype(np.uint8)) for p in pixels]


def test_fid_closed_form() -> None:
    """Compare with the closed form: |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2))."""
    from scipy.linalg import sqrtm

    real, generated = shades(80, 50, 0), shades(80, 90, 1)
    found = clip_distances(HalfMeans(), real, generated)
    one, two = (HalfMeans()(to_uint8(images)).double().numpy() for images in (real, generated))
    distance = ((one.mean(0) - two.mean(0)) ** 2).sum()
    c1, c2 = np.cov(one.T), np.cov(two.T)
    expected = distance + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert expected > 1000
    assert found["clip_fid"] == pytest.approx(expected, rel=1e-3)


def test_clip_distances_order() -> None:
    near, far = (
        clip_distances(HalfMeans(), shades(60, 50, 0), shades(60, b, 1)) for b in (50, 120)
    )
    assert near["clip_fid"] < 0.1 * far["clip_fid"]
    assert near["clip_kid"] < 0.1 * far["clip_kid"]
    assert clip_distances(HalfMeans(), shades(60, 50, 0), shades(60, 120, 1)) == far
    with pytest.raises(ValueError, match="at least 3 images of each kind, not 2"):
        clip_distances(HalfMeans(), shades(2, 50, 0), shades(60, 50, 1))


def test_iis_and_aic_of_matched_and_shifted_images() -> None:
    clip = CLIPFeatures("mini")
    rng = np.random.default_rng(0)
    views = [random_view(rng, near=name, far_prob=0.0) for name in CLASSES]
    real = [render(view, np.random.default_rng(i)) for i, view in enumerate(views)]
    generated = [render(view, np.random.default_rng(100 + i)) for i, view in enumerate(views)]
    matched = iis_and_aic(clip, real, generated, CLASSES)
    assert matched["iis"].value > 0.95 and matched["aic"].value >= 0.5  # labels are not captions
    similarity = (
        clip.embed_images(generated) @ clip.embed_texts([class_caption(name) for name in CLASSES]).T
    )
    assert (similarity.argmax(1) == torch.arange(len(CLASSES))).float().mean() >= 0.9
    shifted = iis_and_aic(clip, real, generated[1:] + generated[:1], CLASSES)
    assert shifted["iis"].value < 0.8 and shifted["aic"].value <= 0.2


def test_ais_of_matched_and_shifted_audio() -> None:
    """An oracle replaces the encoder: the prompt embeds are those of the class captions."""
    from align.prompts.space import PromptSpace

    clip, space = CLIPFeatures("mini"), PromptSpace.from_pretrained("mini")
    rng = np.random.default_rng(0)
    views = [random_view(rng, near=name, far_prob=0.0) for name in CLASSES]
    generated = [render(view, np.random.default_rng(i)) for i, view in enumerate(views)]
    audio_embeds = space.encode([class_caption(name) for name in CLASSES]).embeds
    unconditional = space.unconditional.embeds
    matched = ais(clip, generated, audio_embeds, unconditional)["ais"]
    assert matched.value > 0.95 and matched.n == len(CLASSES)
    shifted = ais(clip, generated, audio_embeds.roll(1, 0), unconditional)["ais"].value
    assert shifted < 0.7


def test_ais_is_empty_for_another_text_encoder() -> None:
    clip, noise = (
        CLIPFeatures("mini"),
        torch.randn(1, 77, 128, generator=torch.Generator().manual_seed(0)),
    )
    generated = shades(2, 50, 0)
    assert ais(clip, generated, noise.expand(2, -1, -1), noise) == {}
    assert ais(clip, generated, noise.expand(2, -1, -1), noise[..., :64]) == {}
    with pytest.raises(ValueError, match="at least 2 images"):
        from align.prompts.space import PromptSpace

        unconditional = PromptSpace.from_pretrained("mini").unconditional.embeds
        ais(clip, generated[:1], unconditional, unconditional)
