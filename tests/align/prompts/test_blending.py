"""Combine audio and text prompts and several clips; negative prompts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from align.audio.files import AudioError
from align.models.encoder import AudioPromptEncoder
from align.prompts.blending import blend, weighted_mean
from align.prompts.embeds import PromptEmbeds
from align.prompts.space import PromptSpace
from tests.conftest import RATE, tone
from tests.helpers import pipelines as tiny

CLIPS = [tone(300), tone(3000)]


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory, tiny_base: str) -> dict[str, PromptSpace]:
    root = tmp_path_factory.mktemp("bases")
    bases = {
        "sd1": tiny_base,
        "sdxl": tiny.save_sdxl(root / "xl"),
        "sd3": tiny.save_sd3(root / "3"),
    }
    return {name: PromptSpace.from_pretrained(base) for name, base in bases.items()}


@pytest.fixture(scope="module")
def encoder(tiny_clap: str, spaces: dict[str, PromptSpace]) -> AudioPromptEncoder:
    return tiny.new_encoder(tiny_clap, spaces)


def encode(encoder: AudioPromptEncoder, space: str, **options: object) -> dict[str, torch.Tensor]:
    return encoder.encode_prompt(CLIPS, sampling_rate=RATE, space=space, **options)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3"])
def test_interpolate_between_audio_and_text(
    name: str, encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    text = spaces[name].encode(tiny.CAPTIONS[:2])
    plain, from_text = encode(encoder, name), text.pipeline_kwargs(text)
    at = {w: encode(encoder, name, text=text, text_weight=w) for w in (0.0, 0.25, 1.0)}
    for key in plain:
        if key.startswith("negative"):
            assert all(torch.equal(found[key], plain[key]) for found in at.values())
            continue
        assert torch.equal(at[0.0][key], plain[key])
        assert torch.equal(at[1.0][key], from_text[key])
        torch.testing.assert_close(at[0.25][key], 0.75 * plain[key] + 0.25 * from_text[key])
    half = encode(encoder, name, text=text)
    assert torch.equal(
        half["prompt_embeds"], encode(encoder, name, text=text, text_weight=0.5)["prompt_embeds"]
    )


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3"])
def test_concatenate_extends_prompt_and_negative(
    name: str, encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    text = spaces[name].encode(tiny.CAPTIONS[:1])
    plain, both = encode(encoder, name), encode(encoder, name, text=text, blend="concatenate")
    rest = 256 if name == "sd3" else 0  # zeros in place of the T5 embeds
    width = text.embeds.shape[-1]
    assert both["prompt_embeds"].shape[1] == both["negative_prompt_embeds"].shape[1] == 154 + rest
    own, unconditional = both["prompt_embeds"], both["negative_prompt_embeds"]
    assert torch.equal(own[:, :77], plain["prompt_embeds"][:, :77])
    assert torch.equal(own[:, 77:154, :width], text.embeds.expand(2, -1, -1))
    assert not own[:, 154:].any() and not own[..., width:].any()
    for part in (unconditional[:, :77], unconditional[:, 77:154]):
        assert torch.equal(part, plain["negative_prompt_embeds"][:, :77])
    if text.pooled is not None:
        mean = (plain["pooled_prompt_embeds"] + text.pooled) / 2
        torch.testing.assert_close(both["pooled_prompt_embeds"], mean)
        assert torch.equal(
            both["negative_pooled_prompt_embeds"], plain["negative_pooled_prompt_embeds"]
        )


def test_add_subtracts_center_from_text(
    encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    text = spaces["sdxl"].encode(tiny.CAPTIONS[:1])
    center = encoder.head("sdxl").center(1)
    plain = encode(encoder, "sdxl")
    found = encode(encoder, "sdxl", text=text, blend="add", text_weight=0.3)
    expected = plain["prompt_embeds"] + 0.3 * (text.embeds - center.embeds)
    torch.testing.assert_close(found["prompt_embeds"], expected)
    pooled = plain["pooled_prompt_embeds"] + 0.3 * (text.pooled - center.pooled)
    torch.testing.assert_close(found["pooled_prompt_embeds"], pooled)
    none = encode(encoder, "sdxl", text=text, blend="add", text_weight=0.0)
    assert torch.equal(none["prompt_embeds"], plain["prompt_embeds"])
    # The center itself must not change the prompt.
    average = encode(encoder, "sdxl", text=center, blend="add", text_weight=0.7)
    assert torch.equal(average["prompt_embeds"], plain["prompt_embeds"])


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_audio_weights_average_clips(name: str, encoder: AudioPromptEncoder) -> None:
    plain = encode(encoder, name)
    mixed = encode(encoder, name, audio_weights=[3, 1])
    for key, value in plain.items():
        assert mixed[key].shape == (1, *value.shape[1:])
        torch.testing.assert_close(mixed[key], (0.75 * value[0] + 0.25 * value[1])[None])
    assert torch.equal(
        encode(encoder, name, audio_weights=[0, 2])["prompt_embeds"][0], plain["prompt_embeds"][1]
    )
    assert not torch.equal(*plain["prompt_embeds"])


def test_negative_accepts_audio_and_text(
    encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    plain = encode(encoder, "sdxl")
    against = encoder.encode_prompt(tone(900), sampling_rate=RATE, space="sdxl")
    one = encode(encoder, "sdxl", negative=tone(900))
    for key in ("prompt_embeds", "pooled_prompt_embeds"):
        assert torch.equal(one[key], plain[key])
        expected = against[key].expand(2, *[-1] * (against[key].ndim - 1))
        assert torch.equal(one[f"negative_{key}"], expected)
    swapped = encode(encoder, "sdxl", negative=CLIPS[::-1])
    assert torch.equal(swapped["negative_prompt_embeds"], plain["prompt_embeds"].flip(0))
    text = spaces["sdxl"].encode("a bell")
    from_text = encode(encoder, "sdxl", negative=text, text=text, blend="concatenate")
    assert torch.equal(
        from_text["negative_prompt_embeds"], torch.cat([text.embeds] * 2, 1).expand(2, -1, -1)
    )
    assert torch.equal(from_text["negative_pooled_prompt_embeds"], text.pooled.expand(2, -1))


def test_invalid_blend_raises(encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]) -> None:
    text = spaces["sd1"].encode(tiny.CAPTIONS[:3])
    invalid = [
        (
            {"text": text.select(slice(1)), "blend": "mix"},
            "no blend mode 'mix'; there are: interpolate",
        ),
        ({"text": text}, "one text for all, or 2, not 3"),
        ({"negative": text}, "one negative for all, or 2, not 3"),
        ({"text": spaces["sdxl"].encode("a bell")}, "has pooled embeds, unlike"),
        (
            {"text": PromptEmbeds(torch.zeros(1, 77, 40))},
            "the text has width 40 and this prompt space 32",
        ),
        ({"negative": PromptEmbeds(torch.zeros(1, 50, 32))}, "has 50 positions and the audio 77"),
        (
            {"text": text.select(slice(1)), "blend": "concatenate", "text_weight": 0.2},
            "takes no weight",
        ),
        ({"text_weight": 0.2}, "blend and text_weight require text"),
        ({"blend": "add"}, "blend and text_weight require text"),
        ({"audio_weights": [1.0]}, "2 clips and 1 weights"),
        ({"audio_weights": [1.0, -1.0]}, "not all 0, not"),
        ({"audio_weights": [float("nan"), 1.0]}, r"not \[nan, 1.0\]"),
        ({"audio_weights": [float("inf"), 1.0]}, r"not \[inf, 1.0\]"),
        (
            {"text": text.select(slice(1)), "text_weight": float("nan")},
            "must be a finite number, not nan",
        ),
        (
            {"text": "at night"},
            "the text must be given as PromptEmbeds, not str: encode it by PromptSp",
        ),
        ({"text": ["at night"]}, "the text must be given as PromptEmbeds, not list"),
        ({"text": text.embeds}, "the text must be given as PromptEmbeds, not Tensor"),
        ({"text": "at night", "blend": "concatenate"}, "the text must be given as PromptEmbeds"),
    ]
    for options, message in invalid:
        with pytest.raises(ValueError, match=message):
            encode(encoder, "sd1", **options)
    base = re.escape(spaces["sd1"].base_model)
    for negative in ("blurry", ["blurry"], [CLIPS[0], "blurry"]):
        message = rf"blurry.*PromptSpace.from_pretrained\('{base}'\).encode\("
        with pytest.raises(AudioError, match=message):
            encoder.encode_prompt(
                [tone(300), tone(3000)], sampling_rate=RATE, space="sd1", negative=negative
            )


def test_unreadable_negative_raises_audio_error(
    encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_text("not audio")
    with pytest.raises(AudioError) as caught:
        encode(encoder, "sd1", negative=str(tmp_path / "a.wav"))
    assert "PromptSpace" not in str(caught.value)


def test_blend_keeps_padding(spaces: dict[str, PromptSpace]) -> None:
    text = spaces["sd3"].encode(tiny.CAPTIONS[:2])
    assert text.padding == (256, 24)
    for found in (
        weighted_mean(text, [1, 2]),
        blend(text, text, "add", None, text),
        blend(text, text, "interpolate", None, text),
        blend(text, text, "concatenate", None, text),
    ):
        assert found.padding == text.padding
