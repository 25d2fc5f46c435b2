"""FID, KID, IIS, AIC and AIS against worked cases, by the miniature's CLIP."""

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


def test_wins_of_worked_cases() -> None:
    found = win_rate(torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 4.0], [9.0, 9.0, 1.0]]))
    assert found.tolist() == pytest.approx([1.0, 0.25, 0.0])
    assert win_rate(torch.ones(5, 5)).tolist() == pytest.approx([0.5] * 5)
    noise = torch.rand(400, 400, generator=torch.Generator().manual_seed(0))
    assert win_rate(noise).mean().item() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(ValueError, match="no others"):
        win_rate(torch.ones(1, 1))


class Plain(torch.nn.Module):
    """Two features of a picture: the means of its halves."""

    num_features = 2

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        halves = pictures.float().mean(1).chunk(2, dim=-1)
        return torch.stack([half.mean((1, 2)) for half in halves], 1)


def shades(count: int, base: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    pixels = [np.repeat(rng.integers(0, 40, (2, 1, 1)) + base, 8, 0).repeat(16, 1).repeat(3, 2)
              for _ in range(count)]  # fmt: skip
    return [Image.fromarray(p.transpose(1, 0, 2).astype(np.uint8)) for p in pixels]


def test_fid_is_that_of_two_gaussians() -> None:
    """Against the closed form: |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2))."""
    from scipy.linalg import sqrtm

    real, drawn = shades(80, 50, 0), shades(80, 90, 1)
    found = clip_distances(Plain(), real, drawn)
    one, two = (Plain()(to_uint8(images)).double().numpy() for images in (real, drawn))
    apart = ((one.mean(0) - two.mean(0)) ** 2).sum()
    c1, c2 = np.cov(one.T), np.cov(two.T)
    wanted = apart + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert wanted > 1000
    assert found["fid"] == pytest.approx(wanted, rel=1e-3)


def test_the_same_kind_of_pictures_is_nearer_than_another() -> None:
    near, far = (clip_distances(Plain(), shades(60, 50, 0), shades(60, b, 1)) for b in (50, 120))
    assert near["fid"] < 0.1 * far["fid"] and near["kid"] < 0.1 * far["kid"]
    assert clip_distances(Plain(), shades(60, 50, 0), shades(60, 120, 1)) == far
    with pytest.raises(ValueError, match="at least 3 pictures of each kind, not 2"):
        clip_distances(Plain(), shades(2, 50, 0), shades(60, 50, 1))


def test_pictures_of_their_own_labels_fit_and_others_do_not() -> None:
    eyes = CLIPFeatures("mini")
    rng = np.random.default_rng(0)
    views = [random_view(rng, near=name, far_prob=0.0) for name in CLASSES]
    real = [render(view, np.random.default_rng(i)) for i, view in enumerate(views)]
    drawn = [render(view, np.random.default_rng(100 + i)) for i, view in enumerate(views)]
    right = iis_and_aic(eyes, real, drawn, CLASSES)
    assert right["iis"].value > 0.95 and right["aic"].value >= 0.5  # bare labels are no captions
    likeness = (
        eyes.embed_images(drawn) @ eyes.embed_texts([class_caption(name) for name in CLASSES]).T
    )
    assert (likeness.argmax(1) == torch.arange(len(CLASSES))).float().mean() >= 0.9
    turned = iis_and_aic(eyes, real, drawn[1:] + drawn[:1], CLASSES)
    assert turned["iis"].value < 0.8 and turned["aic"].value <= 0.2


def test_sounds_that_say_what_is_seen_fit_and_others_do_not() -> None:
    """Perfect listeners: their prompt embeds are those of the thing's own caption."""
    from align.prompts.space import PromptSpace

    eyes, space = CLIPFeatures("mini"), PromptSpace.from_pretrained("mini")
    rng = np.random.default_rng(0)
    views = [random_view(rng, near=name, far_prob=0.0) for name in CLASSES]
    drawn = [render(view, np.random.default_rng(i)) for i, view in enumerate(views)]
    heard = space.encode([class_caption(name) for name in CLASSES]).embeds
    null = space.unconditional.embeds
    right = ais(eyes, drawn, heard, null)["ais"]
    assert right.value > 0.95 and right.n == len(CLASSES)
    turned = ais(eyes, drawn, heard.roll(1, 0), null)["ais"].value
    assert turned < 0.7


def test_a_base_with_another_text_encoder_has_no_ais() -> None:
    eyes, noise = (
        CLIPFeatures("mini"),
        torch.randn(1, 77, 128, generator=torch.Generator().manual_seed(0)),
    )
    drawn = shades(2, 50, 0)
    assert ais(eyes, drawn, noise.expand(2, -1, -1), noise) == {}
    assert ais(eyes, drawn, noise.expand(2, -1, -1), noise[..., :64]) == {}
    with pytest.raises(ValueError, match="no others"):
        from align.prompts.space import PromptSpace

        null = PromptSpace.from_pretrained("mini").unconditional.embeds
        ais(eyes, drawn[:1], null, null)
