"""Pictures edited from their own noise: the way there and back, and the layout that is kept."""

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


def hearing(base: str, encoder: AudioPromptEncoder) -> SoundPipeline:
    """A pipeline with an adapter whose gates are open."""
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
    return hearing(tiny_base, tiny_encoder)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def latents(pipe: SoundPipeline, sound: Any, wanted: Inversion, **options: Any) -> torch.Tensor:
    """What an edit draws, before it is decoded."""
    found: list[torch.Tensor] = []

    def look(_: Any, given: tuple[Any, ...]) -> None:
        found.append(given[0])

    hook = pipe.pipeline.vae.decoder.register_forward_pre_hook(look)
    options = {"prompt": "", "num_inference_steps": 4, "guidance_scale": 3.0, **options}
    try:
        pipe(sound, image=wanted, **options)
    finally:
        hook.remove()
    return found[-1]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_sound_picture_text_and_layout_all_count(pipe: SoundPipeline, picture: Image.Image) -> None:
    first = latents(pipe, LOW, Inversion(picture))
    assert torch.equal(first, latents(pipe, LOW, Inversion(picture)))
    others = [
        latents(pipe, HIGH, Inversion(picture)),
        latents(pipe, LOW, Inversion(picture.rotate(180))),
        latents(pipe, LOW, Inversion(picture, source_prompt="rain")),
        latents(pipe, LOW, Inversion(picture, injection_ratio=0.0)),
        latents(pipe, LOW, Inversion(picture, strength=0.5)),
        latents(pipe, LOW, Inversion(picture), audio_guidance=2.0),
    ]
    assert all(apart(other, first) > 1e-4 for other in others)


def test_the_layout_of_the_first_steps_alone_is_kept(
    pipe: SoundPipeline, picture: Image.Image
) -> None:
    """Of four steps two: the source is heard at these, and once more on the way to its noise."""
    calls: list[int] = []
    stock = pipe.pipeline.unet.forward

    def counted(sample: torch.Tensor, *given: Any, **more: Any) -> Any:
        calls.append(len(sample))
        return stock(sample, *given, **more)

    pipe.pipeline.unet.forward = counted
    try:
        latents(pipe, LOW, Inversion(picture, injection_ratio=0.5, strength=1.0))
    finally:
        del pipe.pipeline.unet.forward
    assert calls == [1, 1, 1, 1, *(1, 2), *(1, 2), 2, 2]


def test_after_an_edit_nothing_is_left_behind(pipe: SoundPipeline, picture: Image.Image) -> None:
    def drawn() -> np.ndarray:
        return np.asarray(pipe(LOW, "rain", num_inference_steps=2).images[0])

    before, own = drawn(), pipe.pipeline.scheduler
    hooks = {n: len(m._forward_hooks) for n, m in pipe.pipeline.unet.named_modules()}
    latents(pipe, HIGH, Inversion(picture, injection_ratio=1.0))
    with pytest.raises(RuntimeError, match="stop"):
        pipe(LOW, prompt="", image=Inversion(picture), num_inference_steps=2, callback=_stopping)
    assert pipe.pipeline.scheduler is own
    assert hooks == {n: len(m._forward_hooks) for n, m in pipe.pipeline.unet.named_modules()}
    assert (before == drawn()).all()


def _stopping(done: int, steps: int) -> None:
    raise RuntimeError("stop")


def test_the_callback_counts_the_way_back(pipe: SoundPipeline, picture: Image.Image) -> None:
    seen: list[tuple[int, int]] = []
    latents(pipe, LOW, Inversion(picture, strength=0.5), callback=lambda *told: seen.append(told))
    assert seen == [(1, 2), (2, 2)]


def test_what_cannot_be_inverted_is_refused(
    pipe: SoundPipeline, picture: Image.Image, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="inject is a share"):
        Inversion(picture, injection_ratio=1.5)
    with pytest.raises(ValueError, match="strength lies above 0"):
        Inversion(picture, strength=0.0)
    with pytest.raises(ValueError, match="seeds change nothing"):
        pipe(LOW, image=Inversion(picture), num_images=2)
    with pytest.raises(ValueError, match="cannot be read as an image"):
        pipe(LOW, image=Inversion(tmp_path / "missing.png"))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("zero", [False, True])
def test_both_ways_pass_the_same_times(spacing: str, zero: bool) -> None:
    own = DDIMScheduler(timestep_spacing=spacing, rescale_betas_zero_snr=zero, clip_sample=True)
    for strength, count in ((1.0, 20), (0.5, 10)):
        there, back = ddim_schedulers(own, strength)
        for scheduler in (there, back):
            scheduler.set_timesteps(20)
            assert not scheduler.config.clip_sample
        assert there.timesteps.flip(0).tolist() == back.timesteps.tolist()
        lost = zero and spacing == "trailing" and strength == 1.0  # the last, all noise
        assert len(back.timesteps) == count - lost
        assert back.alphas_cumprod[back.timesteps[0]] > 0


def test_the_layout_is_where_plug_and_play_says() -> None:
    """Of Stable Diffusion 1.5: three up blocks of three layers attend, the second one convolves."""
    with torch.device("meta"):
        unet = UNet2DConditionModel()
    names = list(injection_layers(unet))
    assert len(names) == 2 * 9 + 1 and names[-1] == "up_blocks.1.resnets.1.conv2"
    assert all(name.startswith("up_blocks.") and ".attn1.to_" in name for name in names[:-1])


def test_sdxl_is_edited(tmp_path: Path, tiny_clap: str, picture: Image.Image) -> None:
    base = save_sdxl(tmp_path)
    big = hearing(base, new_encoder(tiny_clap, {base: PromptSpace.from_pretrained(base)}))
    first = latents(big, LOW, Inversion(picture), num_inference_steps=2)
    assert apart(latents(big, HIGH, Inversion(picture), num_inference_steps=2), first) > 1e-5


@pytest.mark.slow
def test_at_audio_scale_0_the_source_comes_back(tiny_clap: str) -> None:
    """At least 24 dB of it; with a sound that an untrained adapter hears, less."""
    space = PromptSpace.from_pretrained(STABLE_DIFFUSION)
    pipe = hearing(STABLE_DIFFUSION, new_encoder(tiny_clap, {STABLE_DIFFUSION: space}))
    source = render(View("dog", None, "day", "brown"), np.random.default_rng(3))
    wanted = Inversion(source, injection_ratio=0.0, strength=0.8)
    silent, other, heard = (
        pipe(sound, "", image=wanted, num_inference_steps=25, audio_scale=scale).images[0]
        for sound, scale in ((LOW, 0.0), (HIGH, 0.0), (LOW, 1.0))
    )
    assert psnr(silent, source) > 24 > psnr(heard, source)
    assert (np.asarray(silent) == np.asarray(other)).all()


def test_the_miniature_gives_a_picture_back_and_keeps_its_layout() -> None:
    """Without an edit at least 24 dB, its autoencoder's own loss included; text edits here."""
    pipeline = DiffusionPipeline.from_pretrained(STABLE_DIFFUSION)
    pipeline.set_progress_bar_config(disable=True)
    space = PromptSpace(pipeline)
    null, other = space.unconditional, space.encode(["a rooster by day"])
    source = render(View("dog", None, "day", "brown"), np.random.default_rng(3))
    path = ddim_invert(pipeline, source, null, 25, 0.8)

    def back(inject: float, **asked: Any) -> Image.Image:
        with reverse_trajectory(pipeline, path, 0.8, inject):
            return pipeline(latents=path.noise, num_inference_steps=25, **asked).images[0]

    assert psnr(back(0.0, **null.pipeline_kwargs(null), guidance_scale=1.0), source) > 24
    edited = {i: back(i, **other.pipeline_kwargs(null), guidance_scale=5.0) for i in (0.0, 1.0)}
    assert psnr(edited[0.0], source) < 20
    assert outline_f1(edited[1.0], source) > outline_f1(edited[0.0], source) + 0.02


def test_outlines_of_worked_cases() -> None:
    square = np.zeros((32, 32, 3), np.uint8)
    square[8:20, 8:20] = 255
    moved = [Image.fromarray(np.roll(square, by, 1)) for by in (0, 1, 9)]
    assert outline_f1(moved[0], moved[0]) == outline_f1(moved[0], moved[1]) == 1.0
    assert 0 < outline_f1(moved[0], moved[2]) < 0.7
    plain = Image.new("RGB", (32, 32))
    assert outline_f1(plain, plain) == 1.0 and outline_f1(plain, moved[0]) == 0.0
    assert psnr(plain, Image.new("RGB", (32, 32), (51, 51, 51))) == pytest.approx(13.979, abs=1e-3)


def test_the_command_edits(
    tiny_base: str,
    tiny_encoder: AudioPromptEncoder,
    picture: Image.Image,
    sound_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "encoder")
    picture.save(tmp_path / "photo.png")
    line = [
        str(tmp_path / "photo.png"), str(sound_folder / "0.wav"), "--base_model", tiny_base,
        "--encoder", str(tmp_path / "encoder"), "--num_inference_steps", "2", "--device", "cpu",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    main([*line, "--injection_ratio", "0.5", "--source_prompt", "rain"])
    told = json.loads(Image.open(tmp_path / "out" / "seed-0.png").text["soundprompt"])
    assert told["image"] == "photo.png" and told["scheduler"] == "DDIMScheduler"
    assert (told["inject"], told["source"], told["strength"]) == (0.5, "rain", 0.7)
    with pytest.raises(SystemExit, match="inject is a share of the steps"):
        main([*line, "--injection_ratio", "2"])
    for wrong, said in (
        (
            ("--method", "image", "--injection_ratio", "1"),
            "--injection_ratio is for --method inversion",
        ),
        (
            ("--method", "image", "--source_prompt", "rain"),
            "--source_prompt is for --method inversion",
        ),
        (("--scheduler", "euler"), "leave --scheduler out"),
    ):
        with pytest.raises(SystemExit):
            main([*line, *wrong])
        assert said in capsys.readouterr().err
