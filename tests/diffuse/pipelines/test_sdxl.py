"""SoundPipeline with SDXL: pooled embeds and audio guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from align.prompts.space import PromptSpace
from diffuse.models.adapter import SoundAdapter
from diffuse.models.configuration import AdapterConfig
from diffuse.pipelines.sound_pipeline import SoundPipeline
from tests.conftest import RATE, tone
from tests.helpers.pipelines import new_encoder, save_sdxl

LOW, HIGH = (RATE, tone(200)), (RATE, tone(4000))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory, tiny_clap: str) -> SoundPipeline:
    base = save_sdxl(tmp_path_factory.mktemp("sdxl"))
    encoder = new_encoder(tiny_clap, {base: PromptSpace.from_pretrained(base)})
    base_pipe = SoundPipeline.from_pretrained(base, encoder, device="cpu")
    torch.manual_seed(1)
    config = AdapterConfig(base_model="tiny-xl", width=16, heads=2)
    adapter = SoundAdapter.from_unet(base_pipe.pipeline.unet, encoder, config)
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return SoundPipeline(base_pipe.pipeline, encoder, adapter, base)


def pixels(pipe: SoundPipeline, audio: Any, *text: Any, **options: Any) -> np.ndarray:
    output = pipe(audio, *text, num_inference_steps=2, relation="none", **options)
    return np.asarray(output.images[0])


@pytest.mark.parametrize("text", ["a dog barking", "", None])
@pytest.mark.parametrize("guided", [{}, {"audio_guidance_scale": 3.0}])
def test_sdxl_is_conditioned_on_audio(
    pipe: SoundPipeline, text: str | None, guided: dict[str, float]
) -> None:
    first = pixels(pipe, LOW, text, **guided)
    assert (first == pixels(pipe, LOW, text, **guided)).all()
    assert (first != pixels(pipe, HIGH, text, **guided)).any()
    assert (first != pixels(pipe, LOW, text, audio_scale=0.0, **guided)).any()


def test_sdxl_without_adapter_combines_text_and_audio(pipe: SoundPipeline) -> None:
    assert pipe.attached is not None
    attached, pipe.attached = pipe.attached, None
    attached.clear_audio()
    try:
        first = pixels(pipe, LOW, "a dog barking")
        assert (first != pixels(pipe, HIGH, "a dog barking")).any()
        assert (first != pixels(pipe, LOW, "a dog barking", audio_scale=0.0)).any()
    finally:
        pipe.attached = attached
