"""One encoder for several prompt spaces: trained together, or with a head added later."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from align import evaluate
from align.config.arguments import ModelArguments
from align.models.encoder import AudioPromptEncoder
from align.prompts.space import PromptSpace
from align.train import main
from align.training.setup import build_encoder
from tests.conftest import RATE, tone
from tests.helpers import pipelines as tiny
from tests.helpers.launches import command, session, weights

pytestmark = pytest.mark.slow  # trainings, or an app that is started


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base model with pooled embeds, and wider than the tiny one."""
    return tiny.save_sdxl(tmp_path_factory.mktemp("sdxl-1.0"))


@pytest.fixture(scope="module")
def both(
    tiny_base: str, wide: str, tiny_clap: str, sound_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """A run with two base models."""
    folder = tmp_path_factory.mktemp("both")
    more = ("--base_model", wide, "--eval_strategy", "epoch", "--save_strategy", "epoch")
    main(command(tiny_base, tiny_clap, sound_folder, folder, *more))
    return folder


def part(folder: Path, base: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a head."""
    prefix = f"heads.{base.replace('.', '%2E')}."
    found = {n: value for n, value in weights(folder).items() if n.startswith(prefix)}
    assert len(found) > 10
    return found


def test_two_spaces_are_trained_together(both: Path, tiny_base: str, wide: str) -> None:
    encoder = AudioPromptEncoder.from_pretrained(both)
    assert encoder.heads.names == sorted([tiny_base, wide])
    assert encoder.config.default_space == tiny_base
    shapes = {}
    for base in (tiny_base, wide):
        prompt = encoder.encode_prompt(tone(300), sampling_rate=RATE, space=base)
        shapes[base] = {name: value.shape[1:] for name, value in prompt.items()}
    assert shapes[tiny_base]["prompt_embeds"] == (77, 32)
    assert shapes[wide]["prompt_embeds"] == (77, tiny.SDXL_WIDTH)
    assert shapes[wide]["pooled_prompt_embeds"] == (tiny.SDXL_POOLED,)
    metrics = json.loads((both / "metrics.json").read_text())
    for name in ("class_accuracy", "centered_cosine"):
        assert 0 <= metrics[f"{name} ({wide})"] <= 1
        assert name in metrics


def test_both_heads_train_and_log_their_losses(
    both: Path, tiny_base: str, wide: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    last = max(both.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    lines = [line for line in history if "loss" in line]
    assert lines
    names = {"loss_info_nce", "loss_mse", *(f"loss_{n} ({wide})" for n in
             ("info_nce", "mse", "pooled_mse"))}  # fmt: skip
    for line in lines:
        terms = {name: value for name, value in line.items() if name.startswith("loss_")}
        assert set(terms) == names
        assert sum(terms.values()) == pytest.approx(line["loss"], rel=1e-3, abs=1e-3)
    opened = session(command(tiny_base, tiny_clap, sound_folder, tmp_path, "--base_model", wide))
    before = {k: v.clone() for k, v in opened.encoder.state_dict().items()}
    opened.train()
    after = opened.encoder.state_dict()
    trained = {n for n, p in opened.encoder.named_parameters() if n.startswith("heads.")}
    assert trained == {n for n, p in opened.encoder.named_parameters() if p.requires_grad}
    assert [n for n in trained if torch.equal(before[n], after[n])] == []


def test_added_head_changes_no_other_weights(
    both: Path, tiny_base: str, wide: str, sound_folder: Path, tmp_path: Path
) -> None:
    third = tiny.save_stable_diffusion(tmp_path / "sd2-1", tiny.WIDE)
    line = command(third, "", sound_folder, tmp_path / "run", "--init_from", str(both))
    opened = session(_without_sizes(line))
    first = {name: value.clone() for name, value in opened.encoder.state_dict().items()}
    opened.train()
    before, after = weights(both), weights(tmp_path / "run")
    assert set(before) < set(after)
    assert [n for n in before if not torch.equal(before[n], after[n])] == []
    assert part(tmp_path / "run", third).keys() == set(after) - set(before)
    trained = [n for n, p in opened.encoder.named_parameters() if p.requires_grad]
    assert trained and set(trained) <= set(after) - set(before)
    assert [n for n in trained if torch.equal(first[n], after[n])] == []
    encoder = AudioPromptEncoder.from_pretrained(tmp_path / "run")
    assert set(encoder.heads.names) == {tiny_base, wide, third}
    assert encoder.config.default_space == third


def test_evaluate_other_space(both: Path, wide: str, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.json"
    more = ("--num_images", "0", "--num_workers", "1", "--json", str(metrics))
    evaluate.main([str(both), "--space", wide, *more])
    there, here = (json.loads(path.read_text()) for path in (both / "metrics.json", metrics))
    for name in ("class_accuracy", "centered_cosine", "centered_cosine_oracle"):
        assert here[name] == there[f"{name} ({wide})"]
    assert here["centered_cosine"] != there["centered_cosine"]


def test_level_weights_train_in_every_head(
    tiny_base: str, wide: str, tiny_clap: str, tmp_path: Path
) -> None:
    spaces = [PromptSpace.from_pretrained(base) for base in (tiny_base, wide)]
    named = {"base_model": [tiny_base, wide]}
    sizes = {"adapter_width": 16, "adapter_depth": 1, "adapter_heads": 2}
    first = ModelArguments(backbone=tiny_clap, adapter="hierarchical", **named, **sizes)
    build_encoder(first, *spaces).save_pretrained(tmp_path)
    second = ModelArguments(init_from=str(tmp_path), train_adapter="level_weights", **named)
    free = {n for n, p in build_encoder(second, *spaces).named_parameters() if p.requires_grad}
    assert len(free) == 2
    assert {name.partition(".adapter.")[2] for name in free} == {"level_weights"}


def _without_sizes(line: list[str]) -> list[str]:
    """Return a command line without the options that --init_from sets."""
    own = ("--backbone", "--adapter_width", "--adapter_depth", "--adapter_heads")
    return [w for i, w in enumerate(line) if w not in own and line[i - 1] not in own]


def test_incompatible_options_are_refused(
    both: Path, tiny_base: str, wide: str, tiny_clap: str, sound_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line = command(tiny_base, tiny_clap, sound_folder, tmp_path / "run")
    start = ("--init_from", str(both))
    refused = [
        (
            [*line, "--base_model", wide, "--gradient_cache", "2"],
            "--gradient_cache supports one --base_model",
        ),
        (
            [*line, "--base_model", wide, "--learn_temperature", "true"],
            "--learn_temperature supports one",
        ),
        ([*line, "--base_model", tiny_base], "names each pipeline once"),
        ([*_without_sizes(line), *start, "--train_backbone", "all"], "would break the heads of"),
    ]
    for words, expected in refused:
        with pytest.raises(SystemExit) as caught:
            main(words)
        out = capsys.readouterr().err + str(caught.value)
        assert re.search(expected, out), out
