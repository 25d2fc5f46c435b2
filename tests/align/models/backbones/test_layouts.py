"""Checkpoint layouts on the Hub, and pooled CLAP tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoFeatureExtractor,
    ClapAudioModel,
    ClapAudioModelWithProjection,
    ClapModel,
    Wav2Vec2BertModel,
)

from align.config.options import parse_options
from align.models.backbones.loading import load_backbone
from align.models.encoder import AudioPromptEncoder
from align.models.processing import pad
from align.prompts.embeds import SpaceShape
from tests.conftest import RATE, tone

ADAPTER = {"adapter_type": "linear"}


def pooled(where: str) -> AudioPromptEncoder:
    shapes = {"base": SpaceShape("base", 5, 8)}
    made: AudioPromptEncoder = AudioPromptEncoder.from_backbone(
        where, ADAPTER, shapes, audio_tokens="pooled"
    )
    made.head().embeds_std.fill_(1.0)
    return made.eval()


def tokens(encoder: AudioPromptEncoder, duration_s: float) -> torch.Tensor:
    batch = pad([encoder.processor.extract_features(tone(300, duration_s), RATE)])
    with torch.no_grad():
        found, mask = encoder.get_audio_tokens(**batch)
    assert mask.all()
    return found


def test_pooled_token_is_the_clap_embedding(tiny_clap: str) -> None:
    encoder = pooled(tiny_clap)
    plain = ClapModel.from_pretrained(tiny_clap).eval()
    features = encoder.processor.extract_features(tone(300), RATE)
    with torch.no_grad():
        inputs = torch.from_numpy(features[0])[None, None]
        wanted = plain.audio_projection(plain.audio_model(inputs).pooler_output)
    found = tokens(encoder, 2.0)
    assert found.shape == (1, 1, 16)
    assert encoder.backbone.token_width == 16
    unit = torch.nn.functional.normalize(wanted, dim=-1)
    torch.testing.assert_close(found[0], unit * 4.0)  # square root of 16
    assert tokens(encoder, 5.0).shape == (1, 3, 16)  # one per window


def test_pooled_encoder_is_saved_with_its_projection(tiny_clap: str, tmp_path: Path) -> None:
    encoder = pooled(tiny_clap)
    encoder.save_pretrained(tmp_path)
    assert sum("audio_projection" in key for key in load_file(tmp_path / "model.safetensors")) == 4
    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    wave = tone(300)
    first, second = (e.encode(wave, sampling_rate=RATE).embeds for e in (encoder, loaded))
    assert first.std() > 0.1
    assert torch.equal(first, second)


def test_pooled_tokens_require_the_projection(tiny_clap: str, tiny_w2v_bert: str, tmp_path: Path):
    whole = ClapModel.from_pretrained(tiny_clap)
    extractor = AutoFeatureExtractor.from_pretrained(tiny_clap)
    with_projection = ClapAudioModelWithProjection(whole.config.audio_config)
    state = {k: v for k, v in whole.state_dict().items() if k.startswith("audio_")}
    with_projection.load_state_dict(state)
    for name, model in (("with", with_projection), ("without", whole.audio_model)):
        model.save_pretrained(tmp_path / name)
        extractor.save_pretrained(tmp_path / name)
    assert torch.equal(tokens(pooled(str(tmp_path / "with")), 2.0), tokens(pooled(tiny_clap), 2.0))
    with pytest.raises(ValueError, match=r"lacks .* weights.*give a whole CLAP checkpoint"):
        load_backbone(str(tmp_path / "without"), audio_tokens="pooled")
    with pytest.raises(ValueError, match="no pooled token, which only CLAP has"):
        load_backbone(tiny_w2v_bert, audio_tokens="pooled")


def test_other_audio_tokens_exit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options("align.train", ["--audio_tokens", "some"])
    assert "--audio_tokens is all or pooled, not 'some'" in capsys.readouterr().err


def rewritten(source: str, folder: Path, **more: torch.Tensor) -> str:
    """A checkpoint with additional tensors, as stored by older versions of transformers."""
    folder.mkdir()
    state = load_file(Path(source) / "model.safetensors") | more
    for file in Path(source).glob("*.json"):
        (folder / file.name).write_text(file.read_text())
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def assert_same_backbone(one: str, other: str) -> None:
    ours, theirs = (load_backbone(name)[0].state_dict() for name in (one, other))
    assert ours.keys() == theirs.keys() != set()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_clap_keys_match_the_published_checkpoint(tiny_clap: str, tmp_path: Path) -> None:
    keys = set(load_file(Path(tiny_clap) / "model.safetensors"))
    # Some keys of laion/larger_clap_general.
    published = {
        "audio_model.audio_encoder.batch_norm.running_mean",
        "audio_model.audio_encoder.patch_embed.proj.weight",
        "audio_model.audio_encoder.layers.0.blocks.0.attention.self.query.weight",
        "audio_model.audio_encoder.layers.0.blocks.0.attention.output.dense.weight",
        "audio_model.audio_encoder.layers.0.downsample.reduction.weight",
        "audio_model.audio_encoder.norm.weight",
        "audio_projection.linear1.weight",
        "audio_projection.linear2.weight",
        "logit_scale_a",
        "text_model.embeddings.word_embeddings.weight",
    }
    assert published <= keys
    # Its file has buffers that newer versions of transformers compute instead.
    stored = {"text_model.embeddings.position_ids": torch.arange(514)[None]}
    older = rewritten(tiny_clap, tmp_path / "older", **stored)
    assert_same_backbone(older, tiny_clap)


def test_w2v_bert_keys_match_the_published_checkpoint(tiny_w2v_bert: str) -> None:
    keys = set(load_file(Path(tiny_w2v_bert) / "model.safetensors"))
    # Some keys of facebook/w2v-bert-2.0.
    published = {
        "masked_spec_embed",
        "feature_projection.layer_norm.weight",
        "feature_projection.projection.weight",
        "encoder.layers.0.ffn1.intermediate_dense.weight",
        "encoder.layers.0.self_attn.linear_q.weight",
        "encoder.layers.0.self_attn.distance_embedding.weight",
        "encoder.layers.0.conv_module.depthwise_conv.weight",
        "encoder.layers.0.conv_module.depthwise_layer_norm.weight",
        "encoder.layers.0.final_layer_norm.weight",
    }
    assert published <= keys
    backbone, _ = load_backbone(tiny_w2v_bert)
    assert {key.removeprefix("model.") for key in backbone.state_dict()} == keys


def test_w2v_bert_with_adapter_loads(tiny_w2v_bert: str, tmp_path: Path) -> None:
    model = Wav2Vec2BertModel.from_pretrained(
        tiny_w2v_bert, add_adapter=True, num_adapter_layers=2, output_hidden_size=24
    )
    model.save_pretrained(tmp_path)
    AutoFeatureExtractor.from_pretrained(tiny_w2v_bert).save_pretrained(tmp_path)
    backbone, _ = load_backbone(str(tmp_path))
    assert backbone.token_width == 24
    for name, value in model.state_dict().items():
        assert torch.equal(backbone.state_dict()[f"model.{name}"], value), name


def test_published_clap_has_64_tokens() -> None:
    """A window of laion/larger_clap_general has 64 tokens."""
    from transformers import ClapAudioConfig, ClapFeatureExtractor

    config = ClapAudioConfig(
        hidden_size=1024, depths=[2, 2, 12, 2], num_attention_heads=[4, 8, 16, 32],
        patch_embeds_hidden_size=128, num_hidden_layers=4,
    )  # fmt: skip
    with torch.device("meta"):
        shape = ClapAudioModel(config)(torch.zeros(1, 1, 1001, 64)).last_hidden_state.shape
    assert shape == (1, 1024, 2, 32)
    assert ClapFeatureExtractor().nb_max_samples == 480_000
