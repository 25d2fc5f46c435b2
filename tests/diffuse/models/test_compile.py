"""Audio attention under torch.compile."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from align.models.encoder import AudioPromptEncoder
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attach import attach
from diffuse.models.attention_processor import CROSS_ATTENTION_KWARG
from diffuse.models.configuration import AdapterConfig


@pytest.fixture()
def unet(tiny_base: str) -> Any:
    return UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")


@pytest.fixture()
def adapter(unet: Any, tiny_encoder: AudioPromptEncoder) -> SoundAdapter:
    """An adapter with open gates."""
    found = SoundAdapter.from_unet(
        unet, tiny_encoder, AdapterConfig(base_model="tiny", width=16, heads=2)
    )
    for gate in found.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return found


@pytest.mark.slow
def test_compiled_unet_matches_eager(unet: Any, adapter: SoundAdapter) -> None:
    tokens = torch.randn(1, 10, 32)
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    attached = attach(unet, adapter)
    compiled: Any = torch.compile(unet, backend="aot_eager")

    def both(**extra: Any) -> tuple[torch.Tensor, torch.Tensor]:
        plain, fast = (
            net(latents, torch.tensor(500), text, **copy.copy(extra)).sample
            for net in (unet, compiled)
        )
        torch.testing.assert_close(fast, plain)
        return plain, fast

    with torch.no_grad():
        without_audio = both()[0]
        attached.play({"adapter": tokens}, guided=True)
        with_audio = both()[1]
        assert not torch.equal(with_audio, without_audio)
        attached.set_audio_scale(0.0)
        assert torch.equal(both()[0], without_audio)
    attached.clear_audio()
    audio = adapter.compute_key_values(tokens.expand(2, -1, -1))
    _, out = both(cross_attention_kwargs={CROSS_ATTENTION_KWARG: audio})
    out.square().mean().backward()
    assert all(
        gate.grad is not None and gate.grad.any() for gate in adapter.parameter_groups["gates"]
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler: g++")
def test_inductor_matches_eager(unet: Any, adapter: SoundAdapter) -> None:
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    attached = attach(unet, adapter)
    compiled: Any = torch.compile(unet, backend="inductor")
    with torch.no_grad():
        without_audio = unet(latents, torch.tensor(500), text).sample
        attached.play({"adapter": torch.randn(1, 10, 32)}, guided=True)
        plain, fast = (net(latents, torch.tensor(500), text).sample for net in (unet, compiled))
    torch.testing.assert_close(fast, plain, atol=2e-5, rtol=2e-4)
    assert not torch.allclose(plain, without_audio, atol=1e-2)
