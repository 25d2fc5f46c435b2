"""The mini ControlNet: outlines, initialization, and images that follow the outlines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel
from PIL import Image

from benchmarks.pipelines import cases_of, outline_f1
from soundprompt.mini.build.controlnet import new_controlnet, outlines_of
from soundprompt.mini.models import CONTROLNET, STABLE_DIFFUSION
from soundprompt.mini.outlines import outline
from soundprompt.mini.world import CLASSES


def test_outline_marks_color_changes() -> None:
    pixels = np.full((16, 16, 3), 200, np.uint8)
    pixels[4:12, 4:12] = (200, 40, 200)
    lines = np.asarray(outline(Image.fromarray(pixels)))
    assert lines.shape == (16, 16, 3) and set(np.unique(lines)) == {0, 255}
    white = lines[..., 0] > 0
    assert white[4, 6] and white[3, 6] and white[6, 11] and white[6, 12]
    assert not white[7:9, 7:9].any() and not white[:2].any() and not white[:, 14:].any()
    assert not np.asarray(outline(Image.new("RGB", (16, 16), "red"))).any()
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    assert torch.equal(outlines_of(batch)[0, 0] > 0.5, torch.from_numpy(white))


def test_new_controlnet_has_no_effect() -> None:
    unet = UNet2DConditionModel.from_pretrained(f"{STABLE_DIFFUSION}/unet", dtype=torch.float32)
    controlnet = new_controlnet(unet)
    shared = set(controlnet.state_dict()) & set(unet.state_dict())
    assert len(shared) > 40
    for name in shared:
        assert torch.equal(controlnet.state_dict()[name], unet.state_dict()[name]), name
    latents, embeds = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 128)
    lines = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        down, middle = controlnet(latents, 500, embeds, lines, return_dict=False)
        assert not any(residual.any() for residual in (*down, middle))
        expected = unet(latents, 500, embeds).sample
        actual = unet(
            latents, 500, embeds, down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample  # fmt: skip
    assert torch.equal(expected, actual)


@pytest.mark.slow
def test_generated_images_follow_the_outlines() -> None:
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        STABLE_DIFFUSION,
        controlnet=ControlNetModel.from_pretrained(CONTROLNET, dtype=torch.float32),
        dtype=torch.float32,
    )
    pipeline.set_progress_bar_config(disable=True)
    cases = cases_of(CLASSES)
    fits = {}
    for scale in (0.0, 1.0):
        images = pipeline(
            ["a picture"] * len(cases), image=[case.control_image for case in cases],
            num_inference_steps=10, controlnet_conditioning_scale=scale,
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip
        fits[scale] = np.mean(
            [outline_f1(i, c.control_image) for i, c in zip(images, cases, strict=True)]
        )
    assert fits[1.0] > 0.8
    assert fits[0.0] < fits[1.0] - 0.1
