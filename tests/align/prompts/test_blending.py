"""Sound with text, sound with sound, and what guidance leads away from."""

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

SOUNDS = [tone(300), tone(3000)]


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


def say(encoder: AudioPromptEncoder, space: str, **how: object) -> dict[str, torch.Tensor]:
    return encoder.encode_prompt(SOUNDS, sampling_rate=RATE, space=space, **how)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3"])
def test_interpolation_goes_from_the_sound_to_the_text(
    name: str, encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    text = spaces[name].encode(tiny.CAPTIONS[:2])
    plain, told = say(encoder, name), text.pipeline_kwargs(text)
    at = {w: say(encoder, name, text=text, text_weight=w) for w in (0.0, 0.25, 1.0)}
    for key in plain:
        if key.startswith("negative"):
            assert all(torch.equal(found[key], plain[key]) for found in at.values())
            continue
        assert torch.equal(at[0.0][key], plain[key])
        assert torch.equal(at[1.0][key], told[key])
        torch.testing.assert_close(at[0.25][key], 0.75 * plain[key] + 0.25 * told[key])
    half = say(encoder, name, text=text)
    assert torch.equal(
        half["prompt_embeds"], say(encoder, name, text=text, text_weight=0.5)["prompt_embeds"]
    )


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3"])
def test_concatenation_makes_both_attended_and_lengthens_the_null(
    name: str, encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    text = spaces[name].encode(tiny.CAPTIONS[:1])
    plain, both = say(encoder, name), say(encoder, name, text=text, blend="concatenate")
    rest = 256 if name == "sd3" else 0  # zeros in the place of T5
    width = text.embeds.shape[-1]
    assert both["prompt_embeds"].shape[1] == both["negative_prompt_embeds"].shape[1] == 154 + rest
    own, null = both["prompt_embeds"], both["negative_prompt_embeds"]
    assert torch.equal(own[:, :77], plain["prompt_embeds"][:, :77])
    assert torch.equal(own[:, 77:154, :width], text.embeds.expand(2, -1, -1))
    assert not own[:, 154:].any() and not own[..., width:].any()
    for part in (null[:, :77], null[:, 77:154]):
        assert torch.equal(part, plain["negative_prompt_embeds"][:, :77])
    if text.pooled is not None:
        mean = (plain["pooled_prompt_embeds"] + text.pooled) / 2
        torch.testing.assert_close(both["pooled_prompt_embeds"], mean)
        assert torch.equal(
            both["negative_pooled_prompt_embeds"], plain["negative_pooled_prompt_embeds"]
        )


def test_addition_adds_what_the_text_says_beyond_an_average_caption(
    encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    text = spaces["sdxl"].encode(tiny.CAPTIONS[:1])
    center = encoder.head("sdxl").center(1)
    plain = say(encoder, "sdxl")
    found = say(encoder, "sdxl", text=text, blend="add", text_weight=0.3)
    wanted = plain["prompt_embeds"] + 0.3 * (text.embeds - center.embeds)
    torch.testing.assert_close(found["prompt_embeds"], wanted)
    pooled = plain["pooled_prompt_embeds"] + 0.3 * (text.pooled - center.pooled)
    torch.testing.assert_close(found["pooled_prompt_embeds"], pooled)
    none = say(encoder, "sdxl", text=text, blend="add", text_weight=0.0)
    assert torch.equal(none["prompt_embeds"], plain["prompt_embeds"])
    # An average caption adds nothing.
    average = say(encoder, "sdxl", text=center, blend="add", text_weight=0.7)
    assert torch.equal(average["prompt_embeds"], plain["prompt_embeds"])


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_sounds_are_weighed_into_one(name: str, encoder: AudioPromptEncoder) -> None:
    plain = say(encoder, name)
    mixed = say(encoder, name, audio_weights=[3, 1])
    for key, value in plain.items():
        assert mixed[key].shape == (1, *value.shape[1:])
        torch.testing.assert_close(mixed[key], (0.75 * value[0] + 0.25 * value[1])[None])
    assert torch.equal(
        say(encoder, name, audio_weights=[0, 2])["prompt_embeds"][0], plain["prompt_embeds"][1]
    )
    assert not torch.equal(*plain["prompt_embeds"])


def test_a_negative_is_a_sound_a_sound_each_or_a_text(
    encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    plain = say(encoder, "sdxl")
    against = encoder.encode_prompt(tone(900), sampling_rate=RATE, space="sdxl")
    one = say(encoder, "sdxl", negative=tone(900))
    for key in ("prompt_embeds", "pooled_prompt_embeds"):
        assert torch.equal(one[key], plain[key])
        expected = against[key].expand(2, *[-1] * (against[key].ndim - 1))
        assert torch.equal(one[f"negative_{key}"], expected)
    swapped = say(encoder, "sdxl", negative=SOUNDS[::-1])
    assert torch.equal(swapped["negative_prompt_embeds"], plain["prompt_embeds"].flip(0))
    text = spaces["sdxl"].encode("a bell")
    told = say(encoder, "sdxl", negative=text, text=text, blend="concatenate")
    assert torch.equal(
        told["negative_prompt_embeds"], torch.cat([text.embeds] * 2, 1).expand(2, -1, -1)
    )
    assert torch.equal(told["negative_pooled_prompt_embeds"], text.pooled.expand(2, -1))


def test_wrong_blends_are_refused_by_name(
    encoder: AudioPromptEncoder, spaces: dict[str, PromptSpace]
) -> None:
    text = spaces["sd1"].encode(tiny.CAPTIONS[:3])
    refused = [
        ({"text": text.select(slice(1)), "blend": "mix"}, "no blend 'mix'; there are: interpolate"),
        ({"text": text}, "one text for all, or 2, not 3"),
        ({"negative": text}, "one negative for all, or 2, not 3"),
        ({"text": spaces["sdxl"].encode("a bell")}, "has pooled embeds, unlike"),
        (
            {"text": PromptEmbeds(torch.zeros(1, 77, 40))},
            "the text is 40 wide and this prompt space 32",
        ),
        ({"negative": PromptEmbeds(torch.zeros(1, 50, 32))}, "has 50 positions and the sound 77"),
        ({"text": text.select(slice(1)), "blend": "concatenate", "weight": 0.2}, "takes no weight"),
        ({"weight": 0.2}, "blend and text_weight require text"),
        ({"blend": "add"}, "blend and text_weight require text"),
        ({"weights": [1.0]}, "2 recordings and 1 weights"),
        ({"weights": [1.0, -1.0]}, "not all 0, and not"),
        ({"weights": [float("nan"), 1.0]}, r"not \[nan, 1.0\]"),
        ({"weights": [float("inf"), 1.0]}, r"not \[inf, 1.0\]"),
        ({"text": text.select(slice(1)), "weight": float("nan")}, "the text is a number, not nan"),
        ({"text": "at night"}, "the text is given as prompts, not as str: encode it by PromptSp"),
        ({"text": ["at night"]}, "the text is given as prompts, not as list"),
        ({"text": text.embeds}, "the text is given as prompts, not as Tensor"),
        ({"text": "at night", "blend": "concatenate"}, "the text is given as prompts"),
    ]
    for how, said in refused:
        with pytest.raises(ValueError, match=said):
            say(encoder, "sd1", **how)
    base = re.escape(spaces["sd1"].base_model)
    for negative in ("blurry", ["blurry"], [SOUNDS[0], "blurry"]):
        said = (
            rf"blurry.*in words is given as PromptSpace.from_pretrained\('{base}'\).encode\(words"
        )
        with pytest.raises(AudioError, match=said):
            encoder.encode_prompt(
                [tone(300), tone(3000)], sampling_rate=RATE, space="sd1", negative=negative
            )


def test_a_missing_negative_recording_stays_an_audio_error(
    encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_text("this is no sound")
    with pytest.raises(AudioError) as caught:
        say(encoder, "sd1", negative=str(tmp_path / "a.wav"))
    assert "PromptSpace" not in str(caught.value)


def test_blends_keep_the_padding(spaces: dict[str, PromptSpace]) -> None:
    text = spaces["sd3"].encode(tiny.CAPTIONS[:2])
    assert text.padding == (256, 24)
    for found in (
        weighted_mean(text, [1, 2]),
        blend(text, text, "add", None, text),
        blend(text, text, "interpolate", None, text),
        blend(text, text, "concatenate", None, text),
    ):
        assert found.padding == text.padding
