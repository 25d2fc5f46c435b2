"""The retrieval memory of level tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from align.config.arguments import MemoryArguments
from align.models.encoder import AudioPromptEncoder
from diffuse.models.attach import attach
from diffuse.models.levels import LEVELS, NUM_LEVEL_TOKENS, level_slice
from diffuse.models.memory import LevelRetrievalMemory
from diffuse.models.saving import load_adapter, save_adapter
from diffuse.training.model import UNetWithAudio
from tests.diffuse.models.test_adapter import new_adapter, some_audio
from tests.helpers.adapter_runs import command, fill, training_run

WIDTH = 32


@pytest.fixture()
def tiny_unet(tiny_base: str) -> Any:
    return UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")


def phrases(count: int = 3) -> torch.Tensor:
    """Return target tokens; two rows share the background, and all rows the ambience."""
    targets = torch.randn(
        count, NUM_LEVEL_TOKENS, WIDTH, generator=torch.Generator().manual_seed(3)
    )
    targets[1, level_slice("background")] = targets[0, level_slice("background")]
    targets[:, level_slice("ambience")] = targets[0, level_slice("ambience")]
    return targets


def memory(**options: Any) -> LevelRetrievalMemory:
    """Return a memory of the targets."""
    found = LevelRetrievalMemory.from_targets(
        phrases(), torch.full((WIDTH,), 2.0), MemoryArguments(**options)
    )
    assert found is not None
    return found


def test_from_targets_keeps_unique_phrases_per_level(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = memory(retrieval_memory_weight=0.25).sizes
    assert {level: size["size"] for level, size in sizes.items()} == {
        "foreground": 3, "background": 2, "ambience": 1,
    }  # fmt: skip
    assert {size["weight"] for size in sizes.values()} == {0.25}
    assert (
        LevelRetrievalMemory.from_targets(
            phrases(), torch.ones(WIDTH), MemoryArguments(retrieval_memory=2)
        )
        is None
    )
    assert "the foreground has more phrases than --retrieval_memory 2" in capsys.readouterr().out
    assert (
        LevelRetrievalMemory.from_targets(
            phrases(), torch.ones(WIDTH), MemoryArguments(retrieval_memory=0)
        )
        is None
    )
    assert (
        LevelRetrievalMemory.from_targets(phrases()[:0], torch.ones(WIDTH), MemoryArguments())
        is None
    )


def test_low_temperature_retrieves_nearest_phrase_per_level() -> None:
    targets, spread = phrases(), torch.full((WIDTH,), 2.0)
    near = targets + 0.2 * torch.randn(targets.shape, generator=torch.Generator().manual_seed(4))
    retrieved = memory(retrieval_memory_weight=1.0, retrieval_memory_temperature=0.005)(
        near, spread
    )
    torch.testing.assert_close(retrieved, targets, atol=1e-4, rtol=1e-4)
    half = memory(retrieval_memory_weight=0.5, retrieval_memory_temperature=0.005)(near, spread)
    torch.testing.assert_close(half, (targets + near) / 2, atol=1e-4, rtol=1e-4)


def test_memory_is_used_unless_projector_trains(
    tiny_unet: Any, tiny_encoder: AudioPromptEncoder
) -> None:
    adapter = new_adapter(tiny_unet, tiny_encoder)
    audio = some_audio()
    inputs = (audio.tokens, audio.mask, audio.embeds)
    alone = adapter.project(*inputs)
    adapter.set_retrieval_memory(memory())
    retrieved = adapter.project(*inputs)
    assert not torch.allclose(retrieved, alone)
    attached = attach(tiny_unet, adapter)
    (used,) = attached.project(audio).values()
    assert torch.equal(used, retrieved)
    model = UNetWithAudio(tiny_unet, adapter)
    attached.train_only("projector")
    # Kernels may differ with and without autograd, so results are equal up to rounding only.
    torch.testing.assert_close(model(*inputs)[0], alone, rtol=1e-5, atol=1e-4)
    attached.train_only("attention")
    torch.testing.assert_close(model(*inputs)[0], retrieved, rtol=1e-5, atol=1e-4)
    adapter.set_retrieval_memory(None)
    torch.testing.assert_close(adapter.project(*inputs), alone, rtol=1e-5, atol=1e-4)
    assert adapter.config.retrieval_memory == {}


def test_memory_is_saved_with_adapter(
    tiny_unet: Any, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    adapter = new_adapter(tiny_unet, tiny_encoder).eval()
    plain = set(adapter.state_dict())
    adapter.set_retrieval_memory(memory())
    save_adapter(adapter, tmp_path)
    assert set(load_file(tmp_path / "projector.safetensors")) - plain == {
        "retrieval_memory.center",
        *(f"retrieval_memory.levels.{level}.embeds" for level in LEVELS),
    }
    loaded = load_adapter(tmp_path).eval()
    audio = some_audio()
    inputs = (audio.tokens, audio.mask, audio.embeds)
    assert torch.equal(loaded.project(*inputs), adapter.project(*inputs))
    assert loaded.config.retrieval_memory == adapter.config.retrieval_memory != {}


@pytest.mark.slow
def test_run_stores_phrases_unless_disabled(
    tiny_base: str, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    encoder, data = tmp_path / "encoder", tmp_path / "data"
    data.mkdir()
    tiny_encoder.save_pretrained(encoder)
    fill(data)
    for name, more in ("kept", ()), ("none", ("--retrieval_memory", "0")):
        folder = tmp_path / name
        training_run(command(tiny_base, encoder, data, folder, *more)).train()
        sizes = json.loads((folder / "config.json").read_text())["retrieval_memory"]
        rows = {level: size["size"] for level, size in sizes.items()}
        known = {"foreground": 3, "background": 1, "ambience": 1}
        assert rows == (known if name == "kept" else {})
        kept = {
            key for key in load_adapter(folder).state_dict() if key.startswith("retrieval_memory.")
        }
        assert len(kept) == (4 if rows else 0)

    # The memory of a loaded adapter is kept if no stage trains the projector.
    saved = (
        "--init_from",
        str(tmp_path / "kept"),
        "--max_steps",
        "1",
        "--retrieval_memory_weight",
        "0.25",
    )
    for stage, more, weight in (
        ("gates", saved, 0.5),
        ("audio_attention", saved, 0.25),
        ("gates", (*saved[:4], "--retrieval_memory", "0"), 0),
    ):
        folder = tmp_path / f"{stage}-{weight}"
        run = training_run(command(tiny_base, encoder, data, folder, *more, "--stages", stage))
        weights = {size["weight"] for size in run.adapter.config.retrieval_memory.values()}
        assert weights == ({weight} if weight else set())
