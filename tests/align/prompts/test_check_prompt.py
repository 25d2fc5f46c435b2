"""Which prompt space fits a pipeline, and what does not fit is said by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from align.models.encoder import AudioPromptEncoder
from align.prompts.loading import load_image_side, load_text_side
from align.prompts.pipelines import PipelineSpec, check_prompt
from align.prompts.space import PromptSpace
from tests.conftest import RATE, tone
from tests.helpers import pipelines as tiny


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, tiny_base: str) -> dict[str, str]:
    root = tmp_path_factory.mktemp("bases")
    return {
        "sd1": tiny_base,
        "sd2": tiny.save_stable_diffusion(root / "sd2", tiny.WIDE),
        "sdxl": tiny.save_sdxl(root / "sdxl"),
        "sd3": tiny.save_sd3(root / "sd3"),
    }


@pytest.fixture(scope="module")
def spaces(bases: dict[str, str]) -> dict[str, PromptSpace]:
    return {name: PromptSpace.from_pretrained(base) for name, base in bases.items()}


@pytest.fixture(scope="module")
def drawing(bases: dict[str, str]) -> dict[str, Any]:
    return {name: load_image_side(base) for name, base in bases.items()}


def test_only_what_is_needed_is_loaded(bases: dict[str, str], drawing: dict[str, Any]) -> None:
    kinds = {
        "sd1": StableDiffusionPipeline,
        "sdxl": StableDiffusionXLPipeline,
        "sd3": StableDiffusion3Pipeline,
    }
    for name, kind in kinds.items():
        assert type(drawing[name]) is kind
        there = {k for k, v in drawing[name].components.items() if v is not None}
        assert there == {"vae", "scheduler", "transformer" if name == "sd3" else "unet"}
        text = load_text_side(bases[name])
        there = {k for k, v in text.components.items() if isinstance(v, torch.nn.Module)}
        assert there == {"text_encoder"} | ({"text_encoder_2"} if name != "sd1" else set())


def test_a_base_without_clip_is_refused(bases: dict[str, str], tmp_path: Path) -> None:
    index = json.loads((Path(bases["sd1"]) / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "T5EncoderModel"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="reads no CLIP text encoder"):
        PromptSpace.from_pretrained(str(tmp_path))
    with pytest.raises(OSError, match="nowhere"):
        PromptSpace.from_pretrained(str(tmp_path / "nowhere"))


def test_a_pipeline_says_what_it_reads(drawing: dict[str, Any]) -> None:
    read = {name: PipelineSpec.from_pipeline(pipeline) for name, pipeline in drawing.items()}
    widths = {name: (reader.width, reader.pooled_width) for name, reader in read.items()}
    assert widths == {
        "sd1": (32, 0),
        "sd2": (tiny.WIDE, 0),
        "sdxl": (tiny.SDXL_WIDTH, tiny.SDXL_POOLED),
        "sd3": (tiny.SD3_JOINT, tiny.SD3_POOLED),
    }
    assert all(reader.dtype == torch.float32 for reader in read.values())


def test_the_space_that_fits_is_chosen(
    tiny_clap: str, spaces: dict[str, PromptSpace], drawing: dict[str, Any], bases: dict[str, str]
) -> None:
    encoder = tiny.new_encoder(tiny_clap, {**spaces, "other": spaces["sd2"]})
    shapes = {name: encoder.head(name).space for name in encoder.heads.names}
    for name in bases:
        assert PipelineSpec.from_pipeline(drawing[name]).select_space(shapes, "sd1") == name
    # Another pipeline of the same width has no base of its own here.
    stranger = StableDiffusionPipeline(**drawing["sd2"].components, requires_safety_checker=False)
    assert PipelineSpec.from_pipeline(stranger).select_space(shapes, "other") == "other"
    with pytest.raises(ValueError, match="sd2, other all fit this StableDiffusionPipeline"):
        PipelineSpec.from_pipeline(stranger).select_space(shapes, "sd1")


def test_an_encoder_without_the_space_names_those_it_has(
    tiny_clap: str, spaces: dict[str, PromptSpace], drawing: dict[str, Any]
) -> None:
    few = {name: spaces[name] for name in ("sd1", "sd3")}
    encoder = tiny.new_encoder(tiny_clap, few)
    said = (
        "StableDiffusionXLPipeline reads embeds 40 wide and pooled ones 12 wide; this encoder has "
        r"sd1 \(32 wide\), sd3 \(64 wide and pooled ones 28 wide\)"
    )
    with pytest.raises(ValueError, match=said):
        encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=drawing["sdxl"])
    with pytest.raises(
        ValueError, match="prompt_embeds is 32 wide, but StableDiffusionPipeline reads"
    ):
        encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=drawing["sd2"], space="sd1")


@pytest.fixture(scope="module")
def prompt(tiny_clap: str, spaces: dict[str, PromptSpace]) -> dict[str, torch.Tensor]:
    encoder = tiny.new_encoder(tiny_clap, {"sdxl": spaces["sdxl"]})
    return encoder.encode_prompt([tone(300), tone(900)], sampling_rate=RATE)


def test_what_does_not_fit_is_said_before_diffusers_sees_it(
    prompt: dict[str, torch.Tensor], drawing: dict[str, Any]
) -> None:
    fits = check_prompt(drawing["sdxl"], prompt)
    assert all(fits[name] is value for name, value in prompt.items())
    embeds, pooled = prompt["prompt_embeds"], prompt["pooled_prompt_embeds"]
    refused = [
        ({"prompt_embeds": embeds[..., :-1]}, "prompt_embeds is 39 wide, but StableDiffusionXL"),
        ({"pooled_prompt_embeds": pooled[..., :-1]}, "pooled_prompt_embeds is 11 wide"),
        ({"prompt_embeds": embeds[:, :-1]}, r"one shape, not \(2, 76, 40\) and \(2, 77, 40\)"),
        ({"prompt_embeds": embeds[0]}, r"must be \(prompts, positions, width\), not \(77, 40\)"),
        ({"prompt_embeds": embeds.half()}, "is torch.float16, but this .* runs in torch.float32"),
        ({"prompt_embeds": embeds.to("meta")}, "is on meta, but this .* on cpu"),
        ({"image_embeds": embeds}, "image_embeds is not read here"),
        ({"pooled_prompt_embeds": pooled[:1], "negative_pooled_prompt_embeds": pooled[:1]},
         r"different numbers of prompts: \[1, 2\]"),
    ]  # fmt: skip
    for change, said in refused:
        with pytest.raises(ValueError, match=said):
            check_prompt(drawing["sdxl"], prompt | change)
    with pytest.raises(ValueError, match="pooled_prompt_embeds is missing"):
        check_prompt(drawing["sdxl"], {"prompt_embeds": embeds})
    with pytest.raises(ValueError, match="pooled_prompt_embeds is not read here"):
        wide = torch.zeros(2, 77, tiny.WIDE)
        check_prompt(drawing["sd2"], {"prompt_embeds": wide, "pooled_prompt_embeds": pooled})
    # Without guidance no negative is needed.
    positive = {name: prompt[name] for name in ("prompt_embeds", "pooled_prompt_embeds")}
    assert check_prompt(drawing["sdxl"], positive) == positive


def test_dtype_and_device_are_the_pipelines(
    tiny_clap: str, spaces: dict[str, PromptSpace], bases: dict[str, str]
) -> None:
    encoder: AudioPromptEncoder = tiny.new_encoder(tiny_clap, {"sd1": spaces["sd1"]})
    half = load_image_side(bases["sd1"], dtype=torch.bfloat16)
    found = encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=half)
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    with pytest.raises(ValueError, match=r"is torch.float32, but this .* runs in torch.bfloat16"):
        encoder.encode_prompt(
            tone(300), sampling_rate=RATE, pipeline=half, torch_dtype=torch.float32
        )
    with pytest.raises(ValueError, match="is on meta, but this StableDiffusionPipeline on cpu"):
        encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=half, device="meta")


def test_a_pipeline_that_cannot_draw_is_refused(
    bases: dict[str, str], drawing: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no UNet or transformer loaded"):
        PipelineSpec.from_pipeline(load_text_side(bases["sd1"]))
    strange = ControlNetModel.from_pretrained(tiny.save_controlnet(tmp_path, tiny.WIDE))
    pipeline = StableDiffusionControlNetPipeline(
        **drawing["sd1"].components, controlnet=strange, requires_safety_checker=False
    )
    with pytest.raises(ValueError, match=r"ControlNet reads embeds 48 wide and the UNet2D.* 32"):
        PipelineSpec.from_pipeline(pipeline)
