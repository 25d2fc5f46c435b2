"""Permissions of saved weights."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.models.encoder import AudioPromptEncoder
from align.models.weights import save_file
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attach import attach
from diffuse.models.configuration import AdapterConfig
from diffuse.models.saving import save_adapter


def modes(folder: Path) -> dict[str, int]:
    """Permissions of a folder's safetensors files by name."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_save_file_applies_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"base": "mini"})
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"a.safetensors": 0o666 & ~mask}
    assert torch.equal(load_file(tmp_path / "a.safetensors")["a"], torch.ones(2))


def test_saved_encoder_and_adapter_are_readable_by_others(
    tiny_encoder: AudioPromptEncoder, tiny_base: str, tmp_path: Path
) -> None:
    from diffusers import UNet2DConditionModel

    before = os.umask(0o022)
    try:
        tiny_encoder.save_pretrained(tmp_path / "encoder")
        unet = UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")
        config = AdapterConfig(base_model="tiny", width=16, heads=2, lora_rank=2)
        adapter = SoundAdapter.from_unet(unet, tiny_encoder, config)
        attach(unet, adapter)
        save_adapter(adapter, tmp_path / "adapter", unet)
    finally:
        os.umask(before)
    assert modes(tmp_path / "encoder") == {"model.safetensors": 0o644}
    written = modes(tmp_path / "adapter")
    assert len(written) == 4 and set(written.values()) == {0o644}
