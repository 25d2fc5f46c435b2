"""Image editing by DDIM inversion and feature injection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from PIL import Image

from align.models.encoder import AudioPromptEncoder
from align.prompts.space import PromptSpace
from benchmarks.editing import outline_f1, psnr
from diffuse.edit import main
from diffuse.models.adapter import SoundAdapter
from diffuse.models.configuration import AdapterConfig
from diffuse.pipelines.inversion import (
    Inversion,
    ddim_invert,
    ddim_schedulers,
    injection_layers,
    reverse_trajectory,
)
from diffuse.pipelines.sound_pipeline import SoundPipeline
from soundprompt.mini.models import STABLE_DIFFUSION
from soundprompt.mini.pictures import render
from soundprompt.mini.world import View
from tests.conftest import RATE, tone
from tests.helpers.pipelines import new_encoder, save_sdxl

LOW, HIGH = (RATE, tone(200)), (RATE, tone(4000))


def open_pipeline(base: str, encoder: AudioPromptEncoder) -> SoundPipeline:
    """Return a pipeline with an adapter whose gates are open."""
    bare = SoundPipeline.from_pretrained(base, encoder, device="cpu")
    torch.manual_seed(1)
    adapter = SoundAdapter.from_unet(
        bare.pipeline.unet, encoder, AdapterConfig(base_model="tiny", width=16, heads=2)
    )
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return SoundPipeline(bare.pipeline, encoder, adapter, base)


@pytest.fixture(scope="module")
def pipe(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    return open_pipeline(tiny_base, tiny_encoder)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def latents(pipe: SoundPipeline, audio: Any, inversion: Inversion, **options: Any) -> torch.Tensor:
    """Return the latents of an edit before decoding."""
    found: list[torch.Tensor] = []

    def capture(_: Any, args: tuple[Any, ...]) -> None:
        found.append(args[0])

    hook = pipe.pipeline.vae.decoder.register_forward_pre_hook(capture)
    options = {"prompt": "", "num_inference_steps": 4, "guidance_scale": 3.0, **options}
    try:
        pipe(audio, image=inversion, **options)
    finally:
        hook.remove()
    return found[-1]


def relative_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_inversion_every_input_changes_the_result(pipe: SoundPipeline, image: Image.Image) -> None:
    first = latents(pipe, LOW, Inversion(image))
    assert torch.equal(first, latents(pipe, LOW, Inversion(image)))
    others = [
        latents(pipe, HIGH, Inversion(image)),
        latents(pipe, LOW, Inversion(image.rotate(180))),
        latents(pipe, LOW, Inversion(image, source_prompt="rain")),
        latents(pipe, LOW, Inversion(image, injection_ratio=0.0)),
        latents(pipe, LOW, Inversion(image, strength=0.5)),
        latents(pipe, LOW, Inversion(image), audio_guidance_scale=2.0),
    ]
    assert all(relative_distance(other, first) > 1e-4 for other in others)


def test_inversion_injects_at_the_first_steps_only(pipe: SoundPipeline, image: Image.Image) -> None:
    """With a ratio of 0.5 the source runs at two of four steps, besides the inversion."""
    calls: list[int] = []
    stock = pipe.pipeline.unet.forward

    def counted(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(sample))
        return stock(sample, *args, **kwargs)

    pipe.pipeline.unet.forward = counted
    try:
        latents(pipe, LOW, Inversion(image, injection_ratio=0.5, strength=1.0))
    finally:
        del pipe.pipeline.unet.forward
    assert calls == [1, 1, 1, 1, *(1, 2), *(1, 2), 2, 2]


def test_inversion_restores_the_pipeline(pipe: SoundPipeline, image: Image.Image) -> None:
    def generate() -> np.ndarray:
        return np.asarray(pipe(LOW, "rain", num_inference_steps=2).images[0])

    before, scheduler = generate(), pipe.pipeline.scheduler
    hooks = {n: len(m._forward_hooks) for n, m in pipe.pipeline.unet.named_modules()}
    latents(pipe, HIGH, Inversion(image, injection_ratio=1.0))
    with pytest.raises(RuntimeError, match="stop"):
        pipe(LOW, prompt="", image=Inversion(image), num_inference_steps=2, callback=_stopping)
    assert pipe.pipeline.scheduler is scheduler
    assert hooks == {n: len(m._forward_hooks) for n, m in pipe.pipeline.unet.named_modules()}
    assert (before == generate()).all()


def _stopping(done: int, steps: int) -> None:
    raise RuntimeError("stop")


def test_inversion_callback_counts_denoising_steps(pipe: SoundPipeline, image: Image.Image) -> None:
    seen: list[tuple[int, int]] = []
    latents(
        pipe, LOW, Inversion(image, strength=0.5), callback=lambda *progress: seen.append(progress)
    )
    assert seen == [(1, 2), (2, 2)]


def test_inversion_rejects_invalid_inputs(
    pipe: SoundPipeline, image: Image.Image, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="injection_ratio must be from 0 to 1"):
        Inversion(image, injection_ratio=1.5)
    with pytest.raises(ValueError, match="strength must be above 0"):
        Inversion(image, strength=0.0)
    with pytest.raises(ValueError, match="the seed has no effect"):
        pipe(LOW, image=Inversion(image), num_images=2)
    with pytest.raises(ValueError, match="cannot be read as an image"):
        pipe(LOW, image=Inversion(tmp_path / "missing.png"))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("zero", [False, True])
def test_ddim_schedulers_have_the_same_timesteps(spacing: str, zero: bool) -> None:
    own = DDIMScheduler(timestep_spacing=spacing, rescale_betas_zero_snr=zero, clip_sample=True)
    for strength, count in ((1.0, 20), (0.5, 10)):
        inverse, denoising = ddim_schedulers(own, strength)
        for scheduler in (inverse, denoising):
            scheduler.set_timesteps(20)
            assert not scheduler.config.clip_sample
        assert inverse.timesteps.flip(0).tolist() == denoising.timesteps.tolist()
        lost = zero and spacing == "trailing" and strength == 1.0  # the last timestep is pure noise
        assert len(denoising.timesteps) == count - lost
        assert denoising.alphas_cumprod[denoising.timesteps[0]] > 0


def test_injection_layers_of_stable_diffusion() -> None:
    """Stable Diffusion 1.5: nine self-attentions and one convolution of the up blocks."""
    with torch.device("meta"):
        unet = UNet2DConditionModel()
    names = list(injection_layers(unet))
    assert len(names) == 2 * 9 + 1 and names[-1] == "up_blocks.1.resnets.1.conv2"
    assert all(name.startswith("up_blocks.") and ".attn1.to_" in name for name in names[:-1])


def test_inversion_with_sdxl(tmp_path: Path, tiny_clap: str, image: Image.Image) -> None:
    base = save_sdxl(tmp_path)
    big = open_pipeline(base, new_encoder(tiny_clap, {base: PromptSpace.from_pretrained(base)}))
    first = latents(big, LOW, Inversion(image), num_inference_steps=2)
    assert (
        relative_distance(latents(big, HIGH, Inversion(image), num_inference_steps=2), first) > 1e-5
    )


@pytest.mark.slow
def test_inversion_audio_scale_zero_reconstructs(tiny_clap: str) -> None:
    """The PSNR is at least 24 dB, and lower with audio through an untrained adapter."""
    space = PromptSpace.from_pretrained(STABLE_DIFFUSION)
    pipe = open_pipeline(STABLE_DIFFUSION, new_encoder(tiny_clap, {STABLE_DIFFUSION: space}))
    source = render(View("dog", None, "day", "brown"), np.random.default_rng(3))
    inversion = Inversion(source, injection_ratio=0.0, strength=0.8)
    without, other, edited = (
        pipe(audio, "", image=inversion, num_inference_steps=25, audio_scale=scale).images[0]
        for audio, scale in ((LOW, 0.0), (HIGH, 0.0), (LOW, 1.0))
    )
    assert psnr(without, source) > 24 > psnr(edited, source)
    assert (np.asarray(without) == np.asarray(other)).all()


def test_inversion_reconstructs_with_the_mini_model() -> None:
    """The PSNR without an edit is at least 24 dB; the edit uses text."""
    pipeline = DiffusionPipeline.from_pretrained(STABLE_DIFFUSION)
    pipeline.set_progress_bar_config(disable=True)
    space = PromptSpace(pipeline)
    empty, other = space.unconditional, space.encode(["a rooster by day"])
    source = render(View("dog", None, "day", "brown"), np.random.default_rng(3))
    path = ddim_invert(pipeline, source, empty, 25, 0.8)

    def denoise(ratio: float, **kwargs: Any) -> Image.Image:
        with reverse_trajectory(pipeline, path, 0.8, ratio):
            return pipeline(latents=path.noise, num_inference_steps=25, **kwargs).images[0]

    assert psnr(denoise(0.0, **empty.pipeline_kwargs(empty), guidance_scale=1.0), source) > 24
    edited = {i: denoise(i, **other.pipeline_kwargs(empty), guidance_scale=5.0) for i in (0.0, 1.0)}
    assert psnr(edited[0.0], source) < 20
    assert outline_f1(edited[1.0], source) > outline_f1(edited[0.0], source) + 0.02


def test_outline_f1_and_psnr() -> None:
    square = np.zeros((32, 32, 3), np.uint8)
    square[8:20, 8:20] = 255
    moved = [Image.fromarray(np.roll(square, by, 1)) for by in (0, 1, 9)]
    assert outline_f1(moved[0], moved[0]) == outline_f1(moved[0], moved[1]) == 1.0
    assert 0 < outline_f1(moved[0], moved[2]) < 0.7
    plain = Image.new("RGB", (32, 32))
    assert outline_f1(plain, plain) == 1.0 and outline_f1(plain, moved[0]) == 0.0
    assert psnr(plain, Image.new("RGB", (32, 32), (51, 51, 51))) == pytest.approx(13.979, abs=1e-3)


def test_edit_command_inversion(
    tiny_base: str,
    tiny_encoder: AudioPromptEncoder,
    image: Image.Image,
    sound_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "encoder")
    image.save(tmp_path / "photo.png")
    line = [
        str(tmp_path / "photo.png"), str(sound_folder / "0.wav"), "--base_model", tiny_base,
        "--encoder", str(tmp_path / "encoder"), "--num_inference_steps", "2", "--device", "cpu",
        "--output_dir", str(tmp_path / "out"),
    ]  # fmt: skip
    main([*line, "--injection_ratio", "0.5", "--source_prompt", "rain"])
    metadata = json.loads(Image.open(tmp_path / "out" / "seed-0.png").text["soundprompt"])
    assert metadata["image"] == "photo.png" and metadata["scheduler"] == "DDIMScheduler"
    assert metadata["injection_ratio"] == 0.5 and metadata["source_prompt"] == "rain"
    assert metadata["strength"] == 0.7
    with pytest.raises(SystemExit, match="injection_ratio must be from 0 to 1"):
        main([*line, "--injection_ratio", "2"])
    for wrong, message in (
        (
            ("--method", "img2img", "--injection_ratio", "1"),
            "--injection_ratio requires --method inversion",
        ),
        (
            ("--method", "img2img", "--source_prompt", "rain"),
            "--source_prompt requires --method inversion",
        ),
        (("--scheduler", "euler"), "leave --scheduler out"),
    ):
        with pytest.raises(SystemExit):
            main([*line, *wrong])
        assert message in capsys.readouterr().err
