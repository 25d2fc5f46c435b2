"""The audio prompt encoder: loading, encoding, saving, and use with pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel

import align
from align.audio.files import AudioError
from align.losses.functional import same_group, sequence_info_nce, sequence_mse
from align.models.adapters import build_adapter
from align.models.backbones.lora import freeze
from align.models.encoder import AudioPromptEncoder
from align.models.processing import pad
from align.preprocessing.text_embeds import CaptionEmbeds
from align.prompts.embeds import PromptEmbeds, SpaceShape
from align.prompts.space import PromptSpace
from tests.conftest import RATE, WIDTH, tone

CAPTIONS = ["a dog in the rain", "a bell", "waves on a beach at night", "a crow"]
ADAPTER = {"adapter_type": "resampler", "width": 16, "depth": 1, "heads": 2, "dropout": 0.1}
BUFFERS = ("embeds_mean", "embeds_std", "embeds_constant", "embeds_unconditional")
NAME = "some/base-1.0"  # with a dot, as in stabilityai's names

New = Callable[..., AudioPromptEncoder]


@pytest.fixture(scope="module")
def space(tiny_base: str) -> PromptSpace:
    return PromptSpace.from_pretrained(tiny_base)


@pytest.fixture(scope="module")
def table(space: PromptSpace) -> CaptionEmbeds:
    return CaptionEmbeds.encode(space, CAPTIONS)


@pytest.fixture(scope="module")
def new_encoder(
    tiny_clap: str, tiny_w2v_bert: str, space: PromptSpace, table: CaptionEmbeds
) -> New:
    """Builds untrained encoders of one or several spaces."""

    def new(backbone: str = "clap", names: tuple[str, ...] = (NAME,), **options: Any):
        torch.manual_seed(0)
        encoder = AudioPromptEncoder.from_backbone(
            {"clap": tiny_clap, "w2v": tiny_w2v_bert}[backbone],
            ADAPTER,
            {name: SpaceShape(space.base_model, 77, WIDTH) for name in names},
            **options,
        )
        for name in names:
            encoder.head(name).set_statistics(table.statistics(), space.unconditional)
        return encoder.eval()

    return new


@pytest.fixture(scope="module")
def encoder(new_encoder: New) -> AudioPromptEncoder:
    return new_encoder()


@pytest.fixture(scope="module")
def blind(tiny_base: str) -> StableDiffusionPipeline:
    """The base pipeline without its text encoder."""
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, text_encoder=None, tokenizer=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: StableDiffusionPipeline, **arguments: Any) -> np.ndarray:
    return pipeline(
        **arguments,
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images


def assert_same_tensors(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys() != set()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, name
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("backbone", ["clap", "w2v"])
def test_saved_folder_is_self_contained(backbone: str, new_encoder: New, tmp_path: Path) -> None:
    encoder = new_encoder(backbone, max_windows=7)
    encoder.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    head = [f"adapter.{key}" for key in encoder.head().adapter.state_dict()]
    wanted = {f"heads.some/base-1%2E0.{key}" for key in [*head, *BUFFERS]}
    wanted |= {f"backbone.{key}" for key in encoder.backbone.state_dict()}
    assert load_file(tmp_path / "model.safetensors").keys() == wanted

    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    assert_same_tensors(loaded, encoder)
    assert not loaded.training
    assert loaded.config.max_windows == 7
    assert loaded.head().space == encoder.head().space
    assert loaded.feature_extractor.to_dict() == encoder.feature_extractor.to_dict()
    before, after = (e.encode(tone(300), sampling_rate=RATE).embeds for e in (encoder, loaded))
    assert torch.equal(before, after)


def test_auto_classes_load_the_folder(encoder: AudioPromptEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), align.AudioPromptConfig)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is align.AudioPromptEncoder
    assert_same_tensors(loaded, encoder)
    assert torch.equal(
        loaded.encode(tone(300), sampling_rate=RATE).embeds,
        encoder.encode(tone(300), sampling_rate=RATE).embeds,
    )


def test_half_precision_encoder_loads(new_encoder: New, tmp_path: Path) -> None:
    exact = new_encoder().encode(tone(300), sampling_rate=RATE).embeds
    new_encoder().half().save_pretrained(tmp_path)
    loaded = AudioPromptEncoder.from_pretrained(tmp_path, dtype=torch.float32)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.head().embeds_constant.dtype == torch.bool
    found = loaded.encode(tone(300), sampling_rate=RATE).embeds
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0.02)
    assert not torch.equal(found, exact)

    half = AudioPromptEncoder.from_pretrained(tmp_path, dtype=torch.float16)
    prompt = half.encode_prompt(tone(300), sampling_rate=RATE)
    assert prompt["prompt_embeds"].dtype == torch.float16
    torch.testing.assert_close(prompt["prompt_embeds"].float(), exact, rtol=0.05, atol=0.05)


def test_encode_prompt_returns_pipeline_kwargs(
    encoder: AudioPromptEncoder, blind: StableDiffusionPipeline
) -> None:
    prompt = encoder.encode_prompt([tone(300), tone(3000)], sampling_rate=RATE)
    assert list(prompt) == ["prompt_embeds", "negative_prompt_embeds"]
    assert {value.shape for value in prompt.values()} == {(2, 77, WIDTH)}
    low, high = generate(blind, **prompt)
    assert not np.array_equal(low, high)
    one = generate(blind, **encoder.encode_prompt(tone(300), sampling_rate=RATE))
    again = generate(blind, **encoder.encode_prompt(tone(300), sampling_rate=RATE))
    other = generate(blind, **encoder.encode_prompt(tone(3000), sampling_rate=RATE))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


class ConstantAdapter(nn.Module):
    """An adapter that returns fixed embeds for any input."""

    def __init__(self, embeds: torch.Tensor) -> None:
        super().__init__()
        self.embeds = embeds

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.embeds, None


def test_caption_embeds_generate_the_captions_image(
    new_encoder: New, tiny_base: str, table: CaptionEmbeds, blind: StableDiffusionPipeline
) -> None:
    encoder = new_encoder()
    head = encoder.head()
    head.adapter = ConstantAdapter(head.statistics().standardize(table.prompts.embeds[2:3]))
    from_audio = generate(blind, **encoder.encode_prompt(tone(300), sampling_rate=RATE))
    whole = StableDiffusionPipeline.from_pretrained(tiny_base)
    whole.set_progress_bar_config(disable=True)
    images = [generate(whole, prompt=caption) for caption in (CAPTIONS[2], CAPTIONS[0])]
    text, other, audio = (np.round(255 * image) for image in (*images, from_audio))
    # Rounding may differ by one gray level between processors.
    assert np.abs(audio - text).max() <= 1
    assert np.abs(audio - other).max() > 1


def test_unconditional_embeds_are_those_of_the_pipeline(
    encoder: AudioPromptEncoder, tiny_base: str
) -> None:
    whole = StableDiffusionPipeline.from_pretrained(tiny_base)
    _, negative = whole.encode_prompt("a dog", "cpu", 1, True)
    assert torch.equal(encoder.head().unconditional(1).embeds, negative)
    prompt = encoder.encode_prompt([tone(300), tone(900)], sampling_rate=RATE)
    assert torch.equal(prompt["negative_prompt_embeds"], negative.expand(2, -1, -1))


@pytest.mark.parametrize("backbone", ["clap", "w2v"])
def test_embeds_do_not_depend_on_other_clips(backbone: str, new_encoder: New) -> None:
    encoder = new_encoder(backbone)
    sounds = [tone(300, 0.7), tone(900, 5.0), tone(3000, 2.3)]
    together = encoder.encode(sounds, sampling_rate=RATE).embeds
    alone = [encoder.encode(sound, sampling_rate=RATE).embeds for sound in sounds]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together[0], together[1])


def test_file_and_array_have_the_same_embeds(encoder: AudioPromptEncoder, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(300), RATE, subtype="FLOAT")
    by_name = encoder.encode(tmp_path / "a.wav").embeds
    assert torch.equal(by_name, encoder.encode(tone(300), sampling_rate=RATE).embeds)


@pytest.mark.parametrize("backbone", ["clap", "w2v"])
def test_encode_matches_training_over_all_windows(backbone: str, new_encoder: New) -> None:
    encoder = new_encoder(backbone)
    encoder.config.max_tokens = 100
    short = tone(300, 1.0)
    long = np.concatenate([tone(f, encoder.processor.window_s) for f in (300, 900, 3000)])
    long = long[: int(2.6 * encoder.processor.window_s * RATE)]
    rows = [encoder.processor.extract_features(sound, RATE) for sound in (short, long)]
    assert [len(row) for row in rows] == [1, 3]
    batch = pad(rows)
    with torch.no_grad():
        tokens, mask = encoder.get_audio_tokens(**batch)
        trained = encoder(tokens=tokens, tokens_mask=mask)
        assert torch.equal(trained.embeds, encoder(**batch).embeds)
    assert tokens.shape[1] <= 100
    assert trained.pooled is None
    used = encoder.encode([short, long], sampling_rate=RATE, batch_size=2).embeds
    restored = encoder.head().to_prompt_embeds(trained.embeds, None).embeds
    torch.testing.assert_close(restored, used, rtol=1e-4, atol=1e-4)
    # A change in the last window has an effect.
    changed = long.copy()
    changed[int(2.2 * encoder.processor.window_s * RATE) :] *= -0.5
    assert not torch.equal(encoder.encode(changed, sampling_rate=RATE).embeds, used[1:])


def test_encoder_with_several_spaces(new_encoder: New, space: PromptSpace, tmp_path: Path) -> None:
    encoder = new_encoder(names=("second", "first-2.1"))
    with torch.no_grad():
        encoder.head("first-2.1").adapter.proj_out.bias.add_(1.0)
    assert encoder.head() is encoder.head("second")
    encoder.save_pretrained(tmp_path)
    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    # A saved configuration is sorted by name; the default space is unchanged.
    saved = json.loads((tmp_path / "config.json").read_text())
    assert list(saved["spaces"]) == ["first-2.1", "second"]
    assert loaded.head() is loaded.head("second")
    for name in (None, "second", "first-2.1"):
        before, after = (
            e.encode_prompt(tone(300), sampling_rate=RATE, space=name)["prompt_embeds"]
            for e in (encoder, loaded)
        )
        assert torch.equal(before, after)
    both = [loaded.encode(tone(300), sampling_rate=RATE, space=n).embeds for n in (None, name)]
    assert not torch.allclose(*both)


def test_invalid_arguments_raise(new_encoder: New) -> None:
    encoder = new_encoder(names=("one", "other-1.5")).train()
    with pytest.raises(ValueError, match=r"no prompt space 'third'; it has: one, other-1\.5"):
        encoder.encode_prompt(tone(300), sampling_rate=RATE, space="third")
    with pytest.raises(ValueError, match="no audio to encode"):
        encoder.encode_prompt([])
    with pytest.raises(ValueError, match="give features and features_mask"):
        encoder(features=torch.zeros(1, 1, 4, 16))
    with pytest.raises(AudioError):
        encoder.encode_prompt("no/such/file.wav")
    assert encoder.training
    encoder.encode_prompt(tone(300), sampling_rate=RATE)
    assert encoder.training


def test_encode_prompt_dtype_and_device(encoder: AudioPromptEncoder) -> None:
    plain = encoder.encode_prompt(tone(300), sampling_rate=RATE)
    assert {(v.dtype, v.device.type) for v in plain.values()} == {(torch.float32, "cpu")}
    other = encoder.encode_prompt(
        tone(300), sampling_rate=RATE, torch_dtype=torch.bfloat16, device=torch.device("meta")
    )
    assert {(v.dtype, v.device.type) for v in other.values()} == {(torch.bfloat16, "meta")}
    half = encoder.encode_prompt(tone(300), sampling_rate=RATE, torch_dtype=torch.float16)
    for name, value in plain.items():
        assert torch.equal(half[name], value.half())


def loss_of(encoder: AudioPromptEncoder, wanted: torch.Tensor) -> torch.Tensor:
    rows = [
        encoder.processor.extract_features(tone(f, d), RATE) for f, d in ((300, 1.0), (900, 2.0))
    ]
    found = encoder(**pad(rows)).embeds
    positives = same_group(torch.arange(len(rows)))
    return sequence_info_nce(found, wanted, positives) + sequence_mse(found, wanted)


@pytest.mark.parametrize("trained", ["none", "1", "all"])
@pytest.mark.parametrize("backbone", ["clap", "w2v"])
def test_only_trainable_weights_are_updated(
    backbone: str, trained: str, new_encoder: New, table: CaptionEmbeds
) -> None:
    encoder = new_encoder(backbone)
    freeze(encoder.backbone, trained)
    encoder.train()
    weights = dict(encoder.named_parameters())
    names = {name for name, weight in weights.items() if weight.requires_grad}
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    wanted = encoder.head().statistics().standardize(table.prompts.embeds[:2])
    optimizer = torch.optim.SGD([weights[name] for name in names], lr=0.1)
    loss_of(encoder, wanted).backward()
    optimizer.step()
    optimizer.zero_grad()
    loss_of(encoder, wanted).backward()

    reached = {name for name, weight in weights.items() if weight.grad is not None}
    assert reached == names
    # The gradient of a key's bias is rounding error only.
    checked = {n for n in names if not n.endswith(("key.bias", "linear_k.bias"))}
    dead = {name for name in checked if not weights[name].grad.any()}
    assert dead == set()
    assert any(name.startswith("heads") for name in names)
    assert any(name.startswith("backbone") for name in names) == (trained != "none")
    after = encoder.state_dict()
    frozen = [n for n in after if n not in names]
    if trained == "all":  # batch norm in training mode updates its running statistics
        frozen = [n for n in frozen if ".batch_norm." not in n]
    assert len(frozen) >= len(BUFFERS)
    assert [name for name in frozen if not torch.equal(before[name], after[name])] == []
    assert [name for name in checked if torch.equal(before[name], after[name])] == []


def test_frozen_modules_remain_in_eval_mode(new_encoder: New) -> None:
    encoder = new_encoder("w2v", hidden_dropout=0.5, attention_dropout=0.5)
    batch = pad([encoder.processor.extract_features(tone(300), RATE)])
    with torch.no_grad():
        wanted, _ = encoder.get_audio_tokens(**batch)
        freeze(encoder.backbone, "none")
        assert torch.equal(encoder.train().get_audio_tokens(**batch)[0], wanted)
        freeze(encoder.backbone, "1")
        assert not torch.equal(encoder.train().get_audio_tokens(**batch)[0], wanted)
        assert torch.equal(encoder.eval().get_audio_tokens(**batch)[0], wanted)


def test_head_has_the_configured_adapter(encoder: AudioPromptEncoder) -> None:
    sizes = {k: v for k, v in ADAPTER.items() if k != "adapter_type"}
    own = build_adapter(
        "resampler",
        token_width=encoder.backbone.token_width,
        length=77,
        embed_width=WIDTH,
        **sizes,
    )
    assert own.state_dict().keys() == encoder.head().adapter.state_dict().keys()
    assert isinstance(encoder.encode(tone(300), sampling_rate=RATE), PromptEmbeds)
