"""Retrieval memory: interpolation, saving, and training runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.config.arguments import MemoryArguments
from align.losses.alignment import TargetTable
from align.models.encoder import AudioPromptEncoder
from align.models.heads import Head
from align.models.memory import RetrievalMemory
from align.prompts.embeds import SpaceShape
from align.train import main
from align.training.setup import build_retrieval_memory
from tests.conftest import RATE, tone
from tests.helpers.launches import command, session, weights

ADAPTER = {"adapter_type": "resampler", "width": 8, "depth": 1, "heads": 2, "dropout": 0.0}
NORTH, EAST = [[2.0, 0.0]], [[0.0, 3.0]]


def memory(weight: float = 0.5, temperature: float = 0.5) -> RetrievalMemory:
    """Two orthogonal embeds of one position and two dimensions, and their pooled embeds."""
    pooled = torch.tensor([[1.0], [5.0]])
    return RetrievalMemory.from_embeds(torch.tensor([NORTH, EAST]), pooled, weight, temperature)


def test_predictions_are_interpolated_with_similar_embeds() -> None:
    # Cosines 1 and 0 at temperature 0.5: weights e^2 / (e^2 + 1) = 0.8808 and 0.1192.
    embeds, pooled = memory()(torch.tensor([[[4.0, 0.0]]]), torch.tensor([[2.0]]))
    assert pooled is not None
    torch.testing.assert_close(
        embeds, torch.tensor([[[2 + 0.8808, 1.5 * 0.1192]]]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        pooled, torch.tensor([[1 + 0.5 * 0.8808 + 2.5 * 0.1192]]), atol=1e-4, rtol=0
    )


def test_low_temperature_and_full_weight_return_the_nearest() -> None:
    predictions = torch.tensor([[[0.2, 0.1]], [[0.1, 0.2]]])
    embeds, _ = memory(weight=1.0, temperature=0.005)(predictions, None)
    torch.testing.assert_close(embeds, torch.tensor([NORTH, EAST]))


def test_half_precision_is_kept_without_overflow() -> None:
    embeds, _ = memory().half()(torch.tensor([[[400.0, 0.0]]]).half(), None)
    assert embeds.dtype == torch.float16
    assert embeds.isfinite().all()


def test_autocast_has_no_effect() -> None:
    predictions = torch.randn(2, 1, 2, generator=torch.Generator().manual_seed(0))
    embeds, _ = memory()(predictions, None)
    with torch.autocast("cpu", torch.bfloat16):
        same, _ = memory()(predictions, None)
    assert torch.equal(embeds, same)


@pytest.fixture()
def head() -> Head:
    torch.manual_seed(0)
    head = Head(8, SpaceShape("base", 3, 4), ADAPTER)
    head.retrieval_memory = RetrievalMemory.from_embeds(torch.randn(2, 3, 4), None, 0.5, 0.15)
    return head


def test_memory_is_not_used_in_training(head: Head) -> None:
    tokens, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    alone = head.adapter(tokens, mask)[0]
    assert torch.equal(head.train()(tokens, mask)[0], alone)
    interpolated = head.eval()(tokens, mask)[0]
    assert not torch.allclose(interpolated, alone)
    head.retrieval_memory = None
    assert torch.equal(head(tokens, mask)[0], alone)


def test_memory_has_no_trainable_weights(head: Head) -> None:
    assert isinstance(head.retrieval_memory, RetrievalMemory)
    assert list(head.retrieval_memory.parameters()) == []
    assert set(head.retrieval_memory.state_dict()) == {"embeds"}


def test_memory_is_saved_and_loaded_with_the_encoder(
    tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    length, width = tiny_encoder.head().embeds_mean.shape
    plain = set(tiny_encoder.state_dict())
    before = tiny_encoder.encode(tone(300), sampling_rate=RATE).embeds
    tiny_encoder.set_retrieval_memory(
        RetrievalMemory.from_embeds(torch.randn(3, length, width), None, 0.25, 0.2)
    )
    try:
        interpolated = tiny_encoder.encode(tone(300), sampling_rate=RATE).embeds
        assert not torch.allclose(interpolated, before)
        tiny_encoder.save_pretrained(tmp_path)
        (added,) = set(load_file(tmp_path / "model.safetensors")) - plain
        assert added.endswith(".retrieval_memory.embeds")
        loaded = AudioPromptEncoder.from_pretrained(tmp_path)
        assert list(loaded.config.retrieval_memory.values()) == [
            {"size": 3, "weight": 0.25, "temperature": 0.2}
        ]
        found = loaded.encode(tone(300), sampling_rate=RATE).embeds
        assert torch.equal(found, interpolated)
    finally:
        tiny_encoder.set_retrieval_memory(None)
    assert torch.equal(tiny_encoder.encode(tone(300), sampling_rate=RATE).embeds, before)
    assert set(tiny_encoder.state_dict()) == plain
    assert tiny_encoder.config.retrieval_memory == {}


def test_pooled_memory_is_saved_and_loaded() -> None:
    pooled = Head(8, SpaceShape("base", 1, 2, pooled_width=1), ADAPTER)
    pooled.retrieval_memory = memory()
    again = Head(8, pooled.space, ADAPTER, pooled.retrieval_memory.config)
    again.load_state_dict(pooled.state_dict())
    assert {"retrieval_memory.embeds", "retrieval_memory.pooled"} <= set(again.state_dict())
    tokens, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    for ours, theirs in zip(pooled.eval()(tokens, mask), again.eval()(tokens, mask), strict=True):
        assert torch.equal(ours, theirs)


def test_memory_above_its_limit_is_disabled(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = TargetTable(torch.randn(5, 3, 4))
    rows = torch.tensor([4, 1, 1, 4])
    found = build_retrieval_memory(wanted, rows, MemoryArguments(retrieval_memory=2))
    assert found is not None
    assert torch.equal(found.get_buffer("embeds"), wanted.embeds[torch.tensor([1, 4])])
    assert build_retrieval_memory(wanted, rows, MemoryArguments(retrieval_memory=1)) is None
    assert "2 targets are more than --retrieval_memory 1" in capsys.readouterr().out
    assert build_retrieval_memory(wanted, rows, MemoryArguments(retrieval_memory=0)) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"retrieval_memory": -1}, "--retrieval_memory is a number of embeddings"),
        ({"retrieval_memory_weight": 0.0}, "--retrieval_memory 0 disables the memory"),
        (
            {"retrieval_memory": 0, "retrieval_memory_weight": 0.4},
            "--retrieval_memory_weight has no effect",
        ),
        ({"retrieval_memory_weight": 1.5}, "at most 1"),
        ({"retrieval_memory_temperature": 0.0}, "above 0"),
    ],
)
def test_invalid_options_raise(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryArguments(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_run_stores_its_targets_in_memory(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    opened = session(command(tiny_base, tiny_clap, sound_folder, run))
    opened.train()
    labels = set(opened.train_features.labels)
    (kept,) = (
        value for name, value in weights(run).items() if name.endswith(".retrieval_memory.embeds")
    )
    assert len(kept) == len(labels) > 1
    assert json.loads((run / "config.json").read_text())["retrieval_memory"] == {
        tiny_base: {"size": len(labels), "weight": 0.5, "temperature": 0.15}
    }
    none = session(
        command(tiny_base, tiny_clap, sound_folder, tmp_path / "none", "--retrieval_memory", "0")
    )
    none.train()
    assert not [name for name in weights(tmp_path / "none") if ".retrieval_memory." in name]
    ours, theirs = weights(run), weights(tmp_path / "none")
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())

    # A run initialized from this encoder replaces or removes the memory.
    further = ("--init_from", str(run), "--base_model", tiny_base, "--dataset", str(sound_folder))
    short = (
        *("--num_images", "0", "--num_sheet_samples", "0"),
        *("--image_classifier", "none", "--max_steps", "1"),
    )
    for more, rows in ((), len(labels)), (("--retrieval_memory", "0"), None):
        folder = tmp_path / f"from-{rows}"
        line = [*further, *short, "--use_cpu", "true", "--bf16", "true", *more]
        main([*line, "--output_dir", str(folder), "--eval_strategy", "epoch"])
        found = AudioPromptEncoder.from_pretrained(folder).head().retrieval_memory
        assert (found and found.config["size"]) == rows


@pytest.mark.slow
def test_epoch_samples_a_fraction_of_the_extra_dataset(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    more = ("--extra_dataset", str(sound_folder), "--extra_dataset_fraction", "0.5")
    opened = session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *more))
    trainer = opened._trainer()
    assert trainer.train_dataset.extra.start == len(opened.train_features) // 2
    rows = [row for _, row in trainer._get_train_sampler()]
    assert sorted(rows) == list(range(len(opened.train_features)))
    assert trainer.eval_dataset.extra is None
