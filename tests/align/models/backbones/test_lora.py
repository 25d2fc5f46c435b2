"""LoRA on a backbone: initialization, training, saving and merging."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from align.models.backbones import lora
from align.models.backbones.loading import Backbone, load_backbone
from align.models.backbones.lora import freeze
from align.models.encoder import AudioPromptEncoder
from align.models.processing import pad
from align.prompts.embeds import SpaceShape
from tests.conftest import RATE, tone
from tests.helpers.launches import assert_same_weights, command, session, weights

# Number of attention projections of the tiny checkpoints.
MAPS = {"clap": 3 * 3, "w2v": 2 * 4}
ADAPTER = {"adapter_type": "resampler", "width": 16, "depth": 1, "heads": 2}


@pytest.fixture(params=["clap", "w2v"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(kind: str, tiny_clap: str, tiny_w2v_bert: str) -> str:
    return {"clap": tiny_clap, "w2v": tiny_w2v_bert}[kind]


def encoder_of(checkpoint: str) -> AudioPromptEncoder:
    torch.manual_seed(0)
    shapes = {"base": SpaceShape("base", 5, 8)}
    made: AudioPromptEncoder = AudioPromptEncoder.from_backbone(checkpoint, ADAPTER, shapes)
    made.head().embeds_std.fill_(1.0)  # without statistics, all embeds are equal
    return made.eval()


def scrambled(module: nn.Module) -> None:
    """Fills both of LoRA's matrices with random values, as after training."""
    generator = torch.Generator().manual_seed(7)
    found = 0
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if ".lora_" in name:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
                found += 1
    assert found


def embeds(encoder: AudioPromptEncoder) -> torch.Tensor:
    found = encoder.encode(tone(300, 1.0), sampling_rate=RATE).embeds
    assert found.std() > 0.1
    return found


def tokens(encoder: AudioPromptEncoder) -> torch.Tensor:
    batch = pad([encoder.processor.extract_features(tone(300, 1.0), RATE)])
    with torch.no_grad():
        return encoder.get_audio_tokens(**batch)[0]


def test_untrained_lora_has_no_effect(kind: str, checkpoint: str) -> None:
    encoder = encoder_of(checkpoint)
    before = tokens(encoder)
    encoder.add_lora(4)
    assert torch.equal(tokens(encoder), before)
    scrambled(encoder.backbone)
    assert not torch.allclose(tokens(encoder), before, atol=1e-3)


def trained(backbone: Backbone) -> set[str]:
    return {name for name, weight in backbone.named_parameters() if weight.requires_grad}


def test_lora_trains_exactly_its_weights(kind: str, checkpoint: str) -> None:
    encoder = encoder_of(checkpoint)
    encoder.add_lora(4)
    freeze(encoder.backbone, "lora")
    names = trained(encoder.backbone)
    assert len(names) == 2 * MAPS[kind]
    assert {name.rpartition("lora_")[2] for name in names} == {
        "A.default.weight", "B.default.weight",
    }  # fmt: skip
    assert {min(encoder.backbone.get_parameter(name).shape) for name in names} == {4}
    scrambled(encoder.backbone)
    batch = pad([encoder.processor.extract_features(tone(300, 1.0), RATE)])
    out = encoder.train()(**batch).embeds
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    found = dict(encoder.backbone.named_parameters())
    assert [n for n in names if found[n].grad is None or not found[n].grad.any()] == []
    assert [n for n in found if n not in names and found[n].grad is not None] == []


def test_unmerged_checkpoint_loads_exactly(kind: str, checkpoint: str, tmp_path: Path) -> None:
    encoder = encoder_of(checkpoint)
    encoder.add_lora(4)
    scrambled(encoder.backbone)
    encoder.save_pretrained(tmp_path)
    kept = weights(tmp_path)
    assert sum(".lora_" in name for name in kept) == 2 * MAPS[kind]
    assert sum(".base_layer.weight" in name for name in kept) == MAPS[kind]
    assert not (tmp_path / "adapter_config.json").exists()
    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    assert loaded.config.backbone["lora_rank"] == 4
    assert torch.equal(embeds(loaded), embeds(encoder))


def test_merged_lora_is_a_plain_backbone_with_the_same_outputs(
    kind: str, checkpoint: str, tmp_path: Path
) -> None:
    encoder = encoder_of(checkpoint)
    plain = set(encoder.state_dict())
    encoder.add_lora(4)
    scrambled(encoder.backbone)
    before = embeds(encoder)
    encoder.merge_lora()
    assert set(encoder.state_dict()) == plain
    torch.testing.assert_close(embeds(encoder), before, rtol=1e-4, atol=1e-5)
    encoder.save_pretrained(tmp_path)
    assert set(weights(tmp_path)) == plain
    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    assert "lora_rank" not in loaded.config.backbone
    assert torch.equal(embeds(loaded), embeds(encoder))
    loaded.merge_lora()  # no effect without LoRA
    assert torch.equal(embeds(loaded), embeds(encoder))


@pytest.mark.slow
def test_run_saves_a_plain_encoder(
    kind: str, checkpoint: str, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    more = ("--train_backbone", "lora", "--lora_rank", "2", "--save_strategy", "epoch")
    opened = session(command(tiny_base, checkpoint, sound_folder, tmp_path, *more))
    before = {name: value.clone() for name, value in opened.encoder.backbone.state_dict().items()}
    opened.train()
    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    kept = {n.removeprefix("backbone."): v for n, v in weights(last).items() if "backbone" in n}
    assert kept.keys() == before.keys()
    moved = {name for name in kept if not torch.equal(kept[name], before[name])}
    assert moved == {name for name in kept if ".lora_" in name}
    assert not any(".lora_" in name or "base_layer" in name for name in weights(tmp_path))
    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    assert torch.equal(embeds(loaded), embeds(opened.encoder.eval()))


@pytest.mark.slow
def test_killed_run_resumes_exactly(
    tiny_clap: str, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    more = ("--train_backbone", "lora", "--save_strategy", "epoch", "--save_total_limit", "5")
    line = command(tiny_base, tiny_clap, sound_folder, tmp_path / "whole", *more)
    session(line).train()
    cut = [*line, "--output_dir", str(tmp_path / "cut")]
    session([*cut, "--num_train_epochs", "2"])
    (tmp_path / "cut").mkdir(exist_ok=True)
    (tmp_path / "whole" / "checkpoint-3").rename(tmp_path / "cut" / "checkpoint-3")
    opened = session(cut)
    assert opened.checkpoint == tmp_path / "cut" / "checkpoint-3"
    opened.train()
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_invalid_lora_raises(tiny_clap: str) -> None:
    backbone, _ = load_backbone(tiny_clap)
    with pytest.raises(ValueError, match="no LoRA to train"):
        freeze(backbone, "lora")
    with pytest.raises(ValueError, match="at least 1, not 0"):
        lora.add(backbone, 0)
    fresh, _ = load_backbone("log-mel")
    with pytest.raises(ValueError, match=r"log_mel backbone as a whole: --train_backbone all"):
        lora.add(fresh, 4)


def test_lora_rank_without_lora_exits(capsys: pytest.CaptureFixture[str]) -> None:
    from align.config.options import parse_options

    with pytest.raises(SystemExit):
        parse_options("align.train", ["--lora_rank", "4"])
    assert "--lora_rank is for --train_backbone lora" in capsys.readouterr().err
