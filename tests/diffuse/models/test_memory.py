"""What levels remember: tokens drawn towards those of phrases, in use alone."""

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
from tests.diffuse.models.test_adapter import new_adapter, some_sound
from tests.helpers.adapter_runs import command, fill, session

WIDTH = 32


@pytest.fixture()
def tiny_unet(tiny_base: str) -> Any:
    return UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")


def phrases(count: int = 3) -> torch.Tensor:
    """Tokens of so many rows that differ in front; two of them are alike behind, all around."""
    wanted = torch.randn(count, NUM_LEVEL_TOKENS, WIDTH, generator=torch.Generator().manual_seed(3))
    wanted[1, level_slice("background")] = wanted[0, level_slice("background")]
    wanted[:, level_slice("ambience")] = wanted[0, level_slice("ambience")]
    return wanted


def memory(**options: Any) -> LevelRetrievalMemory:
    """What a level remembers of the phrases."""
    found = LevelRetrievalMemory.from_targets(
        phrases(), torch.full((WIDTH,), 2.0), MemoryArguments(**options)
    )
    assert found is not None
    return found


def test_every_level_remembers_what_differs_there(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = memory(retrieval_memory_weight=0.25).sizes
    assert {level: size["rows"] for level, size in sizes.items()} == {
        "foreground": 3, "background": 2, "ambience": 1,
    }  # fmt: skip
    assert {size["share"] for size in sizes.values()} == {0.25}
    assert (
        LevelRetrievalMemory.from_targets(
            phrases(), torch.ones(WIDTH), MemoryArguments(retrieval_memory=2)
        )
        is None
    )
    assert "more phrases of the foreground than --retrieval_memory 2" in capsys.readouterr().out
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


def test_a_cold_whole_share_is_the_nearest_phrase_of_each_level() -> None:
    wanted, spread = phrases(), torch.full((WIDTH,), 2.0)
    near = wanted + 0.2 * torch.randn(wanted.shape, generator=torch.Generator().manual_seed(4))
    drawn = memory(retrieval_memory_weight=1.0, retrieval_memory_temperature=0.005)(near, spread)
    torch.testing.assert_close(drawn, wanted, atol=1e-4, rtol=1e-4)
    half = memory(retrieval_memory_weight=0.5, retrieval_memory_temperature=0.005)(near, spread)
    torch.testing.assert_close(half, (wanted + near) / 2, atol=1e-4, rtol=1e-4)


def test_it_is_followed_in_use_and_where_other_parts_train(
    tiny_unet: Any, tiny_encoder: AudioPromptEncoder
) -> None:
    adapter = new_adapter(tiny_unet, tiny_encoder)
    sound = some_sound()
    heard = (sound.tokens, sound.mask, sound.embeds)
    alone = adapter.project(*heard)
    adapter.set_retrieval_memory(memory())
    drawn = adapter.project(*heard)
    assert not torch.allclose(drawn, alone)
    attached = attach(tiny_unet, adapter)
    (used,) = attached.project(sound).values()
    assert torch.equal(used, drawn)
    hearing = UNetWithAudio(tiny_unet, adapter)
    attached.train_only("projector")
    # With and without autograd a projection may run on other kernels: equal but for rounding.
    torch.testing.assert_close(hearing(*heard)[0], alone)  # it trains: it sees its own errors
    attached.train_only("attention")
    torch.testing.assert_close(hearing(*heard)[0], drawn)
    adapter.set_retrieval_memory(None)
    torch.testing.assert_close(adapter.project(*heard), alone)
    assert adapter.config.retrieval_memory == {}


def test_it_is_saved_and_loaded_with_the_adapter(
    tiny_unet: Any, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    adapter = new_adapter(tiny_unet, tiny_encoder).eval()
    plain = set(adapter.state_dict())
    adapter.set_retrieval_memory(memory())
    save_adapter(adapter, tmp_path)
    assert set(load_file(tmp_path / "projector.safetensors")) - plain == {
        "recall.centre",
        *(f"recall.levels.{level}.embeds" for level in LEVELS),
    }
    loaded = load_adapter(tmp_path).eval()
    sound = some_sound()
    heard = (sound.tokens, sound.mask, sound.embeds)
    assert torch.equal(loaded.project(*heard), adapter.project(*heard))
    assert loaded.config.retrieval_memory == adapter.config.retrieval_memory != {}


@pytest.mark.slow
def test_a_training_remembers_its_phrases_unless_told_not_to(
    tiny_base: str, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    encoder, data = tmp_path / "encoder", tmp_path / "data"
    data.mkdir()
    tiny_encoder.save_pretrained(encoder)
    fill(data)
    for name, more in ("kept", ()), ("none", ("--retrieval_memory", "0")):
        folder = tmp_path / name
        session(command(tiny_base, encoder, data, folder, *more)).train()
        sizes = json.loads((folder / "config.json").read_text())["recall"]
        rows = {level: size["rows"] for level, size in sizes.items()}
        known = {"foreground": 3, "background": 1, "ambience": 1}
        assert rows == (known if name == "kept" else {})
        kept = {key for key in load_adapter(folder).state_dict() if key.startswith("recall.")}
        assert len(kept) == (4 if rows else 0)

    # Where the projector stays, so does what it remembers; where it learns, or shall forget, not.
    saved = (
        "--adapter",
        str(tmp_path / "kept"),
        "--max_steps",
        "1",
        "--retrieval_memory_weight",
        "0.25",
    )
    for stage, more, share in (
        ("gates", saved, 0.5), ("audio_attention", saved, 0.25), ("gates", (*saved[:4], "--retrieval_memory", "0"), 0)
    ):  # fmt: skip
        folder = tmp_path / f"{stage}-{share}"
        opened = session(command(tiny_base, encoder, data, folder, *more, "--stages", stage))
        shares = {size["share"] for size in opened.adapter.config.retrieval_memory.values()}
        assert shares == ({share} if share else set())
