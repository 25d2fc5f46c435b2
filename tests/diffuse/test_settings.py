"""Metadata of generations, in the output and in the PNG, and their validation."""

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


def open_adapter(unet: Any, encoder: AudioPromptEncoder, seed: int = 1) -> SoundAdapter:
    torch.manual_seed(seed)
    adapter = SoundAdapter.from_unet(
        unet, encoder, AdapterConfig(base_model="tiny", width=16, heads=2)
    )
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return adapter


@pytest.fixture
def base_pipe(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    """A pipeline without an adapter."""
    return SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")


@pytest.fixture
def adapter_pipe(base_pipe: SoundPipeline, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    """A pipeline with two adapters whose gates are open."""
    pair = {
        name: open_adapter(base_pipe.pipeline.unet, tiny_encoder, seed)
        for seed, name in enumerate(("one", "two"))
    }
    return SoundPipeline(base_pipe.pipeline, tiny_encoder, pair, "tiny")


def test_metadata_has_adapter_weights(adapter_pipe: SoundPipeline) -> None:
    even = adapter_pipe(LOW, "rain", **STEPS)
    assert adapter_pipe.attached is not None
    adapter_pipe.attached.set_adapter_weights({"one": 1.0, "two": 0.2})
    uneven = adapter_pipe(LOW, "rain", **STEPS)
    assert even.metadata["adapter_weights"] == {"one": 1.0, "two": 1.0}
    assert uneven.metadata["adapter_weights"] == {"one": 1.0, "two": 0.2}
    assert (np.asarray(even.images[0]) != np.asarray(uneven.images[0])).any()
    assert json.dumps(even.metadata) != json.dumps(uneven.metadata)


def test_metadata_has_torch_dtype(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> None:
    for dtype in (None, torch.bfloat16):
        pipe = SoundPipeline.from_pretrained(
            tiny_base, tiny_encoder, device="cpu", torch_dtype=dtype
        )
        metadata = pipe(LOW, **STEPS).metadata
        assert metadata["torch_dtype"] == ("float32" if dtype is None else "bfloat16")
        assert metadata["adapter_weights"] is None


def test_relation_reports_audio_moved_to_background(adapter_pipe: SoundPipeline) -> None:
    moved, plain = (
        "which is moved to the background.",
        "The prompt names something other than the audio.",
    )
    more = {"relation": "contradictory", **STEPS}

    def description(pipe: SoundPipeline, audio: Any, **options: Any) -> str:
        found = pipe(audio, "rain", **more, **options).relation
        assert found is not None and found.name == "contradictory"
        return found.description

    assert description(adapter_pipe, LOW).endswith(moved)
    assert description(adapter_pipe, {"foreground": LOW, "background": LOW}) == plain
    assert description(adapter_pipe, LOW, audio_scale=0.0) == plain
    adapter_pipe.set_adapter()
    assert description(adapter_pipe, LOW) == plain


@pytest.mark.parametrize("value", [NAN, INF])
def test_scales_must_be_finite(adapter_pipe: SoundPipeline, value: float) -> None:
    attached = adapter_pipe.attached
    assert attached is not None
    for refused in (
        lambda: attached.set_adapter_weights({"one": 0.5, "two": value}),
        lambda: attached.set_audio_scale(value),
        lambda: attached.set_audio_scale(level_scales={"ambience": value}),
        lambda: attached.set_audio_guidance_scale(value),
        lambda: attached.set_lora_scale(value),
    ):
        with pytest.raises(ValueError, match=f"must be a finite number, not {value}"):
            refused()
    assert attached.adapter_weights() == {"one": 1.0, "two": 1.0}, "all or nothing"
    with pytest.raises(ValueError, match="no adapter is attached as 'three'"):
        attached.set_adapter_weights({"one": 0.5, "three": 0.5})
    assert attached.adapter_weights() == {"one": 1.0, "two": 1.0}
    for scale in (value, -1.0):
        with pytest.raises(
            ValueError, match="level_scales of foreground must be a finite number >= 0"
        ):
            adapter_pipe(LOW, level_scales={"foreground": scale}, **STEPS)
    with pytest.raises(ValueError, match="no level 'far'"):
        adapter_pipe(LOW, level_scales={"far": 1.0}, **STEPS)
    with pytest.raises(ValueError, match="the weights of the clips must be finite"):
        adapter_pipe([LOW, LOW], audio_weights=[value, 1], **STEPS)


def test_pndm_needs_four_steps(base_pipe: SoundPipeline) -> None:
    base_pipe.pipeline.scheduler = new_scheduler("pndm", base_pipe.pipeline.scheduler)
    with pytest.raises(ValueError, match="pndm needs at least 4 steps, not 3"):
        base_pipe(LOW, num_inference_steps=3)
    assert base_pipe(LOW, num_inference_steps=4).images
    without_prk = type(base_pipe.pipeline.scheduler).from_config(
        base_pipe.pipeline.scheduler.config, skip_prk_steps=True
    )
    base_pipe.pipeline.scheduler = without_prk  # as in Stable Diffusion 1
    assert base_pipe(LOW, num_inference_steps=1).images


def test_save_images_reports_overwritten_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    metadata = {"seed": 3, "num_images": 2, "prompt": "rain", "audio_interval": (0.0, 1.0)}
    save_images(images, metadata, tmp_path)
    assert capsys.readouterr().err == ""
    paths = save_images(images[:1], metadata | {"prompt": "a dog"}, tmp_path)
    printed = capsys.readouterr()
    assert printed.err == f"overwrote {paths[0]}\n" and printed.out == ""
    assert json.loads(Image.open(paths[0]).text["soundprompt"])["prompt"] == "a dog"
