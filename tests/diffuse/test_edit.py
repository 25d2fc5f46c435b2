"""Image-to-image editing with audio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align.models.encoder import AudioPromptEncoder
from diffuse.edit import main
from diffuse.models.adapter import SoundAdapter
from diffuse.models.configuration import AdapterConfig
from diffuse.pipelines.sound_pipeline import SoundPipeline
from tests.conftest import RATE, tone

LOW, HIGH = (RATE, tone(200)), (RATE, tone(4000))


@pytest.fixture(scope="module")
def pipe(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    base_pipe = SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")
    torch.manual_seed(1)
    config = AdapterConfig(base_model="tiny", width=16, heads=2)
    adapter = SoundAdapter.from_unet(base_pipe.pipeline.unet, tiny_encoder, config)
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return SoundPipeline(base_pipe.pipeline, tiny_encoder, adapter, tiny_base)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels(output: Any) -> np.ndarray:
    return np.asarray(output.images[0]).astype(int)


def test_img2img_depends_on_audio_image_and_strength(
    pipe: SoundPipeline, image: Image.Image
) -> None:
    options = {"prompt": "rain", "num_inference_steps": 4, "image": image, "strength": 0.5}
    first = pipe(LOW, **options)
    assert first.images[0].size == (32, 16), (
        "the shorter side is the native size, the aspect ratio is kept"
    )
    assert (pixels(first) == pixels(pipe(LOW, **options))).all()
    assert (pixels(first) != pixels(pipe(HIGH, **options))).any()
    other = {**options, "image": image.rotate(180)}
    assert (pixels(first) != pixels(pipe(LOW, **other))).any()
    assert (pixels(first) != pixels(pipe(LOW, **{**options, "strength": 1.0}))).any()
    assert pipe(LOW, **options, height=16, width=16).images[0].size == (16, 16)


def test_img2img_leaves_the_pipeline_unchanged(pipe: SoundPipeline, image: Image.Image) -> None:
    before = pipe(LOW, "rain", num_inference_steps=2)
    pipe(LOW, "rain", num_inference_steps=2, image=image, guidance_scale=1.0)
    assert (pixels(before) == pixels(pipe(LOW, "rain", num_inference_steps=2))).all()


def test_img2img_callback_counts_denoising_steps(pipe: SoundPipeline, image: Image.Image) -> None:
    seen: list[tuple[int, int]] = []
    options = {"num_inference_steps": 4, "image": image, "strength": 0.5}
    pipe(LOW, callback=lambda *progress: seen.append(progress), **options)
    assert seen == [(1, 2), (2, 2)]


def test_img2img_rejects_invalid_inputs(
    pipe: SoundPipeline, image: Image.Image, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="strength must be above 0"):
        pipe(LOW, image=image, strength=0.0)
    with pytest.raises(ValueError, match=r"2 steps at strength .* leave no denoising step"):
        pipe(LOW, image=image, strength=0.1, num_inference_steps=2)
    (tmp_path / "text.png").write_text("not an image")
    for path in (tmp_path / "text.png", tmp_path / "missing.png"):
        with pytest.raises(ValueError, match="cannot be read as an image"):
            pipe(LOW, image=path)


def test_edit_command_img2img(
    tiny_base: str,
    tiny_encoder: AudioPromptEncoder,
    image: Image.Image,
    sound_folder: Path,
    tmp_path: Path,
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "encoder")
    image.save(tmp_path / "photo.png")
    main([
        str(tmp_path / "photo.png"), str(sound_folder / "0.wav"), "--base_model", tiny_base,
        "--encoder", str(tmp_path / "encoder"), "--num_inference_steps", "2", "--strength", "1",
        "--method", "img2img", "--device", "cpu", "--output_dir", str(tmp_path / "out"),
    ])  # fmt: skip
    metadata = json.loads(Image.open(tmp_path / "out" / "seed-0.png").text["soundprompt"])
    assert metadata["image"] == "photo.png" and metadata["strength"] == 1.0
    with pytest.raises(SystemExit, match=r"diffuse\.edit: .*missing.png cannot be read"):
        main([str(tmp_path / "missing.png"), "a.wav", "--output_dir", str(tmp_path)])
