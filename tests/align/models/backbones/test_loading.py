"""Backbones against the plain transformers models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    ClapAudioModel,
    ClapModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from align.models.backbones.clap import ClapBackbone
from align.models.backbones.loading import Backbone, build_backbone, load_backbone
from align.models.backbones.lora import freeze
from align.models.backbones.w2v_bert import W2vBertBackbone
from align.models.processing import pad
from tests.conftest import RATE, tone

RATE_W2V = 16_000


@pytest.fixture(scope="module")
def clap(tiny_clap: str) -> tuple[ClapBackbone, object]:
    backbone, extractor = load_backbone(tiny_clap)
    return backbone.eval(), extractor


@pytest.fixture(scope="module")
def w2v_bert(tiny_w2v_bert: str) -> tuple[W2vBertBackbone, object]:
    backbone, extractor = load_backbone(tiny_w2v_bert)
    return backbone.eval(), extractor


def encode(backbone: Backbone, *features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    batch = pad([[f] for f in features])
    with torch.no_grad():
        return backbone(batch["features"][:, 0], batch["features_mask"][:, 0])


def test_clap_tokens_are_the_cells_of_its_last_feature_map(
    clap: tuple[ClapBackbone, object], tiny_clap: str
) -> None:
    backbone, extractor = clap
    windows = [tone(300), tone(2000)]
    tokens, mask = encode(backbone, *backbone.extract_features(extractor, windows))
    plain = ClapModel.from_pretrained(tiny_clap).eval()
    inputs = extractor(windows, sampling_rate=RATE, truncation="rand_trunc", return_tensors="pt")
    with torch.no_grad():
        cells = plain.audio_model(input_features=inputs["input_features"]).last_hidden_state
    assert tokens.shape == (2, cells.shape[2] * cells.shape[3], backbone.token_width)
    columns = cells.shape[3]
    for row in range(cells.shape[2]):
        for column in range(columns):
            token = tokens[:, row * columns + column]
            torch.testing.assert_close(token, cells[:, :, row, column])
    assert mask.shape == tokens.shape[:2]
    assert mask.all()
    assert not torch.equal(tokens[0], tokens[1])


def test_clap_audio_model_loads(tiny_clap: str, tmp_path: Path) -> None:
    whole, extractor = load_backbone(tiny_clap)
    audio_model = ClapAudioModel(whole.config)
    audio_model.load_state_dict(ClapModel.from_pretrained(tiny_clap).audio_model.state_dict())
    audio_model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    alone, _ = load_backbone(str(tmp_path))
    assert alone.state_dict().keys() == whole.state_dict().keys() != set()
    for name, value in whole.state_dict().items():
        assert torch.equal(alone.state_dict()[name], value), name


def test_w2v_bert_tokens_are_its_output_frames(
    w2v_bert: tuple[W2vBertBackbone, object], tiny_w2v_bert: str
) -> None:
    backbone, extractor = w2v_bert
    features = backbone.extract_features(extractor, [tone(300, 1.0, RATE_W2V)])
    tokens, mask = encode(backbone, *features)
    plain = Wav2Vec2BertModel.from_pretrained(tiny_w2v_bert).eval()
    with torch.no_grad():
        wanted = plain(torch.from_numpy(features[0])[None], mask.long()).last_hidden_state
    torch.testing.assert_close(tokens, wanted)
    assert tokens.shape == (1, len(features[0]), backbone.token_width)
    assert mask.all()


def test_w2v_bert_features_are_those_of_the_extractor(
    w2v_bert: tuple[W2vBertBackbone, object],
) -> None:
    backbone, extractor = w2v_bert
    noise = 0.1 * np.random.default_rng(1).standard_normal(RATE_W2V).astype(np.float32)
    plain = extractor(noise, sampling_rate=RATE_W2V, return_tensors="np")["input_features"][0]
    # The dither is 48 dB below this noise.
    found = backbone.extract_features(extractor, [noise])[0]
    assert np.abs(found - plain).mean() < 0.01 and np.abs(found - plain).max() < 0.2


def test_w2v_bert_dither_raises_digital_zeros(
    w2v_bert: tuple[W2vBertBackbone, object],
) -> None:
    backbone, extractor = w2v_bert
    rng = np.random.default_rng(2)
    padded = np.zeros(3 * RATE_W2V, np.float32)
    padded[:RATE_W2V] = 0.1 * rng.standard_normal(RATE_W2V)
    room = padded + 1e-4 * rng.standard_normal(len(padded)).astype(np.float32)
    zeros, faint, scaled = backbone.extract_features(extractor, [padded, room, 0.1 * padded])
    assert np.abs(zeros - faint).mean() < 0.05
    assert np.abs(zeros - scaled).mean() < 0.01  # 20 dB lower, still above 16-bit steps
    assert np.isfinite(
        backbone.extract_features(extractor, [np.zeros(RATE_W2V, np.float32)])[0]
    ).all()


def test_w2v_bert_tokens_do_not_depend_on_the_batch(
    w2v_bert: tuple[W2vBertBackbone, object],
) -> None:
    backbone, extractor = w2v_bert
    short, long = backbone.extract_features(
        extractor, [tone(300, 0.6, RATE_W2V), tone(900, 2.0, RATE_W2V)]
    )
    assert len(short) < len(long)
    together, mask = encode(backbone, short, long)
    assert mask.sum(1).tolist() == [len(short), len(long)]
    for row, features in enumerate((short, long)):
        alone, _ = encode(backbone, features)
        torch.testing.assert_close(together[row, : len(features)], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("duration_s", [0.61, 0.64, 0.65])
def test_w2v_bert_adapter_shortens_the_mask(tiny_w2v_bert: str, duration_s: float) -> None:
    torch.manual_seed(0)
    backbone, extractor = load_backbone(tiny_w2v_bert, add_adapter=True, num_adapter_layers=2)
    backbone.eval()
    short, long = backbone.extract_features(
        extractor, [tone(300, duration_s, RATE_W2V), tone(900, 2.0, RATE_W2V)]
    )
    alone, own = encode(backbone, short)
    assert alone.shape == (1, -(-len(short) // 4), backbone.token_width)
    assert own.all()
    tokens, mask = encode(backbone, short, long)
    assert tokens.shape[1] == -(-len(long) // 4)
    assert mask.sum(1).tolist() == [alone.shape[1], tokens.shape[1]]
    if len(short) % 4 == 0:  # otherwise padding leaks into the adapter's last convolution
        torch.testing.assert_close(tokens[:1, mask[0]], alone, rtol=1e-4, atol=1e-5)


def test_options_override_the_configuration(tiny_w2v_bert: str) -> None:
    backbone, _ = load_backbone(tiny_w2v_bert, hidden_dropout=0.25)
    assert backbone.config.hidden_dropout == 0.25
    # Layer dropout and a second SpecAugment remain off.
    assert not backbone.config.apply_spec_augment
    assert backbone.config.layerdrop == 0.0


def test_token_width_matches_the_tokens() -> None:
    sizes = {
        "feature_projection_input_dim": 160, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "output_hidden_size": 24,
    }  # fmt: skip
    for adapter, width in ((False, 16), (True, 24)):
        config = Wav2Vec2BertConfig(**sizes, add_adapter=adapter, num_adapter_layers=1)
        backbone = build_backbone(config).eval()
        tokens, _ = encode(backbone, np.zeros((12, 160), np.float32))
        assert backbone.token_width == tokens.shape[2] == width


@pytest.mark.parametrize("kind", ["clap", "w2v_bert"])
def test_features_are_deterministic(
    kind: str, clap: tuple[Backbone, object], w2v_bert: tuple[Backbone, object]
) -> None:
    backbone, extractor = {"clap": clap, "w2v_bert": w2v_bert}[kind]
    windows = [tone(300, d, extractor.sampling_rate) for d in (0.02, 0.5, 2.0)]
    first = backbone.extract_features(extractor, windows)
    np.random.seed(5)
    again = backbone.extract_features(extractor, windows)
    assert len(first) == 3
    for one, other in zip(first, again, strict=True):
        assert one.dtype == np.float32
        assert one.ndim == 2
        assert np.isfinite(one).all()
        assert np.array_equal(one, other)


def trained(backbone: Backbone) -> set[str]:
    return {name for name, weight in backbone.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("kind", "layers"), [("clap", "model.audio_encoder.layers."), ("w2v", "model.encoder.layers.")]
)
def test_freeze_sets_exactly_the_given_layers(
    kind: str, layers: str, tiny_clap: str, tiny_w2v_bert: str
) -> None:
    backbone, _ = load_backbone({"clap": tiny_clap, "w2v": tiny_w2v_bert}[kind])
    names = {name for name, _ in backbone.named_parameters()}
    count = len({name.removeprefix(layers).split(".")[0] for name in names if layers in name})
    assert count == {"clap": 3, "w2v": 2}[kind]
    last = {n for n in names if n.startswith(f"{layers}{count - 1}.")}
    before = {n for n in names if n.startswith(f"{layers}{count - 2}.")}
    assert len(last) > 5
    assert len(before) > 5
    # Used by transformers' SpecAugment only, which is off.
    unused = {n for n in names if "masked_spec_embed" in n}

    freeze(backbone, "1")
    assert trained(backbone) == last
    freeze(backbone, "2")
    assert trained(backbone) == last | before
    freeze(backbone, "none")
    assert trained(backbone) == set()
    freeze(backbone, "all")
    assert trained(backbone) == names - unused

    for wrong in ("some", "-1", "1.5", ""):
        with pytest.raises(ValueError, match=f"not '{wrong}'"):
            freeze(backbone, wrong)
    for wrong in ("0", "9"):
        with pytest.raises(ValueError, match=f"has {count} layers; {wrong} cannot"):
            freeze(backbone, wrong)


def test_unsupported_model_raises(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"type 'bert'.*clap_audio_model, wav2vec2-bert"):
        load_backbone(str(tmp_path))
