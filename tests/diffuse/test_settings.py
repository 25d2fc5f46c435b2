"""What a drawing tells of itself, in its settings and in its PNG, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align.models.encoder import AudioPromptEncoder
from diffuse.cli import save_images
from diffuse.models.adapter import SoundAdapter
from diffuse.models.configuration import AdapterConfig
from diffuse.pipelines.loading import new_scheduler
from diffuse.pipelines.sound_pipeline import SoundPipeline
from tests.conftest import RATE, tone

STEPS = {"num_inference_steps": 2}
LOW = (RATE, tone(200))
NAN, INF = float("nan"), float("inf")


def loud_adapter(unet: Any, encoder: AudioPromptEncoder, seed: int = 1) -> SoundAdapter:
    torch.manual_seed(seed)
    adapter = SoundAdapter.from_unet(
        unet, encoder, AdapterConfig(base_model="tiny", width=16, heads=2)
    )
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return adapter


@pytest.fixture
def silent(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    """Without an adapter."""
    return SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")


@pytest.fixture
def hearing(silent: SoundPipeline, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    """With two adapters that are heard."""
    pair = {
        name: loud_adapter(silent.pipeline.unet, tiny_encoder, seed)
        for seed, name in enumerate(("one", "two"))
    }
    return SoundPipeline(silent.pipeline, tiny_encoder, pair, "tiny")


def test_what_draws_other_pixels_is_told(hearing: SoundPipeline) -> None:
    even = hearing(LOW, "rain", **STEPS)
    assert hearing.attached is not None
    hearing.attached.set_adapter_weights({"one": 1.0, "two": 0.2})
    uneven = hearing(LOW, "rain", **STEPS)
    assert even.metadata["adapter_weights"] == {"one": 1.0, "two": 1.0}
    assert uneven.metadata["adapter_weights"] == {"one": 1.0, "two": 0.2}
    assert (np.asarray(even.images[0]) != np.asarray(uneven.images[0])).any()
    assert json.dumps(even.metadata) != json.dumps(uneven.metadata)


def test_the_precision_is_told(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> None:
    for dtype in (None, torch.bfloat16):
        pipe = SoundPipeline.from_pretrained(
            tiny_base, tiny_encoder, device="cpu", torch_dtype=dtype
        )
        settings = pipe(LOW, **STEPS).metadata
        assert settings["dtype"] == ("float32" if dtype is None else "bfloat16")
        assert settings["adapter_weights"] is None


def test_what_is_put_behind_is_said_where_it_is_done(hearing: SoundPipeline) -> None:
    done, plain = "which is put behind it.", "The text names something else than what is heard."
    more = {"relation": "contradictory", **STEPS}

    def words(pipe: SoundPipeline, sounds: Any, **how: Any) -> str:
        found = pipe(sounds, "rain", **more, **how).relation
        assert found is not None and found.name == "contradictory"
        return found.description

    assert words(hearing, LOW).endswith(done)
    assert words(hearing, {"foreground": LOW, "background": LOW}) == plain
    assert words(hearing, LOW, audio_scale=0.0) == plain
    hearing.set_adapter()
    assert words(hearing, LOW) == plain


@pytest.mark.parametrize("value", [NAN, INF])
def test_scales_that_are_no_numbers_are_refused(hearing: SoundPipeline, value: float) -> None:
    attached = hearing.attached
    assert attached is not None
    for refused in (
        lambda: attached.set_adapter_weights({"one": 0.5, "two": value}),
        lambda: attached.set_audio_scale(value),
        lambda: attached.set_audio_scale(level_scales={"ambience": value}),
        lambda: attached.set_audio_guidance_scale(value),
        lambda: attached.set_lora_scale(value),
    ):
        with pytest.raises(ValueError, match=f"is a number, not {value}"):
            refused()
    assert attached.adapter_weights() == {"one": 1.0, "two": 1.0}, "all or nothing"
    with pytest.raises(ValueError, match="no adapter is attached as 'three'"):
        attached.set_adapter_weights({"one": 0.5, "three": 0.5})
    assert attached.adapter_weights() == {"one": 1.0, "two": 1.0}
    for scale in (value, -1.0):
        with pytest.raises(ValueError, match="level_scales of foreground is a number from 0 on"):
            hearing(LOW, level_scales={"foreground": scale}, **STEPS)
    with pytest.raises(ValueError, match="no level 'far'"):
        hearing(LOW, level_scales={"far": 1.0}, **STEPS)
    with pytest.raises(ValueError, match="weights of the recordings are numbers from 0 on"):
        hearing([LOW, LOW], audio_weights=[value, 1], **STEPS)


def test_pndm_is_refused_the_steps_that_it_cannot_draw_in(silent: SoundPipeline) -> None:
    silent.pipeline.scheduler = new_scheduler("pndm", silent.pipeline.scheduler)
    with pytest.raises(ValueError, match="pndm draws in at least 4 steps, not 3"):
        silent(LOW, num_inference_steps=3)
    assert silent(LOW, num_inference_steps=4).images
    own = type(silent.pipeline.scheduler).from_config(
        silent.pipeline.scheduler.config, skip_prk_steps=True
    )
    silent.pipeline.scheduler = own  # as Stable Diffusion 1's is
    assert silent(LOW, num_inference_steps=1).images


def test_other_pictures_that_are_written_over_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    settings = {"seed": 3, "num_images": 2, "prompt": "rain", "audio_interval": (0.0, 1.0)}
    save_images(images, settings, tmp_path)
    save_images(images[:1], settings | {"num_images": 1}, tmp_path)  # the same picture again
    assert capsys.readouterr().err == ""
    paths = save_images(images[:1], settings | {"prompt": "a dog"}, tmp_path)
    said = capsys.readouterr()
    assert said.err == f'{paths[0]} is written over: prompt was "rain"\n' and said.out == ""
    assert json.loads(Image.open(paths[0]).text["soundprompt"])["prompt"] == "a dog"
    save_images(images[1:], settings | {"prompt": "a dog"}, tmp_path)
    assert "a recording or a model was another of the same name" in capsys.readouterr().err
    for other in (lambda: images[1].save(paths[0]), lambda: paths[0].write_text("no picture")):
        other()
        save_images(images[:1], settings, tmp_path)
        assert "it was no picture of these commands" in capsys.readouterr().err
