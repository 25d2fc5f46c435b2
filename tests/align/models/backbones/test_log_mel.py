"""The log-mel backbone: features, masks, saving and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoFeatureExtractor

from align.config.options import parse_options
from align.models.backbones.loading import backbone_class, load_backbone
from align.models.backbones.log_mel import LogMelBackbone, LogMelConfig, LogMelFeatureExtractor
from align.models.backbones.lora import freeze
from align.models.encoder import AudioPromptEncoder
from align.models.processing import AudioProcessor, pad
from align.prompts.embeds import SpaceShape
from align.training.validation import check_model
from tests.conftest import WIDTH, tone
from tests.helpers.launches import command, session, weights

HZ = 32_000
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "channels": 4}
Loaded = tuple[LogMelBackbone, LogMelFeatureExtractor]


@pytest.fixture(scope="module")
def log_mel() -> Loaded:
    torch.manual_seed(0)
    backbone, extractor = load_backbone("log-mel", **TINY)
    return backbone.eval(), extractor


def encode(backbone: LogMelBackbone, *features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    batch = pad([[f] for f in features])
    with torch.no_grad():
        return backbone(batch["features"][:, 0], batch["features_mask"][:, 0])


def test_tone_has_its_bin_and_level(log_mel: Loaded) -> None:
    _, extractor = log_mel
    low, high, soft = LogMelBackbone.extract_features(
        extractor, [tone(300, 1.0, HZ), tone(6000, 1.0, HZ), 0.1 * tone(300, 1.0, HZ)]
    )
    assert low.shape == (101, 64) and low.dtype == np.float32
    assert low[50].argmax() < 12 < 40 < high[50].argmax()
    peak = low[50].argmax()
    assert soft[50, peak] - low[50, peak] == pytest.approx(-20, abs=0.01)  # decibels of power


def test_tokens_do_not_depend_on_the_batch(log_mel: Loaded) -> None:
    backbone, extractor = log_mel
    short, long = backbone.extract_features(extractor, [tone(300, 0.61, HZ), tone(900, 2.0, HZ)])
    together, mask = encode(backbone, short, long)
    assert mask.sum(1).tolist() == [-(-len(short) // 8), -(-len(long) // 8)]
    assert together.shape == (2, mask.shape[1], backbone.token_width)
    for row, features in enumerate((short, long)):
        alone, own = encode(backbone, features)
        assert own.all()
        torch.testing.assert_close(together[row, mask[row]], alone[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0, 0], together[1, 0], atol=1e-3)


def test_masked_frames_have_no_effect(log_mel: Loaded) -> None:
    backbone, _ = log_mel
    features = torch.randn(1, 100, 64) * 20 - 30
    mask = torch.ones(1, 100, dtype=torch.bool)
    mask[0, 60:] = False
    spoiled = torch.where(mask[..., None], features, torch.full_like(features, 1e4))
    with torch.no_grad():
        before, mask_before = backbone(features, mask)
        after, mask_after = backbone(spoiled, mask)
    assert torch.equal(mask_before, mask_after) and mask_before.sum() == 8
    assert torch.equal(before[mask_before], after[mask_after])


def test_every_weight_has_a_gradient(log_mel: Loaded) -> None:
    backbone, extractor = load_backbone("log-mel", **TINY)
    freeze(backbone, "all")
    batch = pad([[f] for f in backbone.extract_features(extractor, [tone(300, 1.0, HZ)])])
    tokens, _ = backbone(batch["features"][:, 0], batch["features_mask"][:, 0])
    (tokens * torch.randn(tokens.shape)).sum().backward()
    parameters = dict(backbone.named_parameters())
    assert len(parameters) > 25
    without = [n for n, p in parameters.items() if p.grad is None or not p.grad.any()]
    assert without == []


def test_shortest_audio_has_a_token(log_mel: Loaded) -> None:
    backbone, extractor = log_mel
    tokens, mask = encode(backbone, *backbone.extract_features(extractor, [tone(300, 0.005, HZ)]))
    assert mask.all() and torch.isfinite(tokens).all()


def test_auto_classes_load_the_folder(log_mel: Loaded, tmp_path: Path) -> None:
    backbone, extractor = log_mel
    backbone.model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is LogMelConfig
    again = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(again) is LogMelFeatureExtractor and again.to_dict() == extractor.to_dict()
    loaded, _ = load_backbone(str(tmp_path))
    ours, theirs = backbone.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() != set()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_encoder_with_log_mel_saves_and_loads(log_mel: Loaded, tmp_path: Path) -> None:
    adapter = {"adapter_type": "resampler", "width": 16, "depth": 1, "heads": 2}
    encoder = AudioPromptEncoder.from_backbone(
        "log-mel", adapter, {"base": SpaceShape("base", 5, WIDTH)}, **TINY
    ).eval()
    encoder.head().embeds_std.fill_(1.0)  # without statistics, all embeds are equal
    encoder.save_pretrained(tmp_path)
    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    wave = tone(300, 1.0, HZ)
    first, second = (e.encode(wave, sampling_rate=HZ).embeds for e in (encoder, loaded))
    assert first.std() > 0.1
    assert torch.equal(first, second)


def test_other_sampling_rate_raises() -> None:
    with pytest.raises(ValueError, match="8000 Hz; resample to 32000 Hz"):
        LogMelFeatureExtractor()([np.zeros(800, np.float32)], sampling_rate=8000)


def test_window_is_ten_seconds(log_mel: Loaded) -> None:
    processor = AudioProcessor(LogMelBackbone.model_type, log_mel[1], 120)
    assert processor.window_s == 10.0
    assert backbone_class("log_mel") is LogMelBackbone


@pytest.mark.parametrize("trained", ["none", "lora", "2"])
def test_partial_training_exits(trained: str, capsys: pytest.CaptureFixture[Any]) -> None:
    line = ["--backbone", "log-mel", "--train_backbone", trained]
    with pytest.raises(SystemExit):
        parse_options("align.train", line, check=check_model)
    assert "log-mel has no pretraining: give --train_backbone all" in capsys.readouterr().err


@pytest.mark.slow
def test_training_updates_all_weights(tiny_base: str, sound_folder: Path, tmp_path: Path) -> None:
    more = ("--train_backbone", "all", "--num_train_epochs", "1", "--seed", "3")
    opened = session(command(tiny_base, "log-mel", sound_folder, tmp_path, *more))
    before = {name: value.clone() for name, value in opened.encoder.state_dict().items()}
    opened.train()
    after = weights(tmp_path)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    trainable = {name for name, p in opened.encoder.named_parameters() if p.requires_grad}
    assert len(trainable) > 50 and trainable <= moved
