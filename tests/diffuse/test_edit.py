"""Pictures redrawn by sounds."""

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
    bare = SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")
    torch.manual_seed(1)
    config = AdapterConfig(base_model="tiny", width=16, heads=2)
    adapter = SoundAdapter.from_unet(bare.pipeline.unet, tiny_encoder, config)
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return SoundPipeline(bare.pipeline, tiny_encoder, adapter, tiny_base)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels(drawn: Any) -> np.ndarray:
    return np.asarray(drawn.images[0]).astype(int)


def test_sound_picture_and_strength_all_count(pipe: SoundPipeline, picture: Image.Image) -> None:
    options = {"prompt": "rain", "num_inference_steps": 4, "image": picture, "strength": 0.5}
    first = pipe(LOW, **options)
    assert first.images[0].size == (32, 16), "the shorter side is the base's, the shape is kept"
    assert (pixels(first) == pixels(pipe(LOW, **options))).all()
    assert (pixels(first) != pixels(pipe(HIGH, **options))).any()
    other = {**options, "image": picture.rotate(180)}
    assert (pixels(first) != pixels(pipe(LOW, **other))).any()
    assert (pixels(first) != pixels(pipe(LOW, **{**options, "strength": 1.0}))).any()
    assert pipe(LOW, **options, height=16, width=16).images[0].size == (16, 16)


def test_after_an_edit_pictures_begin_from_noise_again(
    pipe: SoundPipeline, picture: Image.Image
) -> None:
    before = pipe(LOW, "rain", num_inference_steps=2)
    pipe(LOW, "rain", num_inference_steps=2, image=picture, guidance_scale=1.0)
    assert (pixels(before) == pixels(pipe(LOW, "rain", num_inference_steps=2))).all()


def test_the_callback_counts_the_steps_that_are_left(
    pipe: SoundPipeline, picture: Image.Image
) -> None:
    seen: list[tuple[int, int]] = []
    options = {"num_inference_steps": 4, "image": picture, "strength": 0.5}
    pipe(LOW, callback=lambda *told: seen.append(told), **options)
    assert seen == [(1, 2), (2, 2)]


def test_what_cannot_begin_is_refused(
    pipe: SoundPipeline, picture: Image.Image, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="strength lies above 0"):
        pipe(LOW, image=picture, strength=0.0)
    with pytest.raises(ValueError, match=r"2 steps at strength .* draw nothing"):
        pipe(LOW, image=picture, strength=0.1, num_inference_steps=2)
    (tmp_path / "text.png").write_text("no picture")
    for path in (tmp_path / "text.png", tmp_path / "missing.png"):
        with pytest.raises(ValueError, match="cannot be read as an image"):
            pipe(LOW, image=path)


def test_the_command_redraws(
    tiny_base: str,
    tiny_encoder: AudioPromptEncoder,
    picture: Image.Image,
    sound_folder: Path,
    tmp_path: Path,
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "encoder")
    picture.save(tmp_path / "photo.png")
    main([
        str(tmp_path / "photo.png"), str(sound_folder / "0.wav"), "--base_model", tiny_base,
        "--encoder", str(tmp_path / "encoder"), "--num_inference_steps", "2", "--strength", "1",
        "--method", "image", "--device", "cpu", "--out", str(tmp_path / "out"),
    ])  # fmt: skip
    told = json.loads(Image.open(tmp_path / "out" / "seed-0.png").text["soundprompt"])
    assert told["image"] == "photo.png" and told["strength"] == 1.0
    with pytest.raises(SystemExit, match=r"diffuse\.edit: .*missing.png cannot be read"):
        main([str(tmp_path / "missing.png"), "a.wav", "--out", str(tmp_path)])
