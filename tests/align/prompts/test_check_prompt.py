"""Select the prompt space of a pipeline, and reject prompts that do not fit."""

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
def image_pipelines(bases: dict[str, str]) -> dict[str, Any]:
    return {name: load_image_side(base) for name, base in bases.items()}


def test_load_sides_skip_other_components(
    bases: dict[str, str], image_pipelines: dict[str, Any]
) -> None:
    kinds = {
        "sd1": StableDiffusionPipeline,
        "sdxl": StableDiffusionXLPipeline,
        "sd3": StableDiffusion3Pipeline,
    }
    for name, kind in kinds.items():
        assert type(image_pipelines[name]) is kind
        loaded = {k for k, v in image_pipelines[name].components.items() if v is not None}
        assert loaded == {"vae", "scheduler", "transformer" if name == "sd3" else "unet"}
        text = load_text_side(bases[name])
        loaded = {k for k, v in text.components.items() if isinstance(v, torch.nn.Module)}
        assert loaded == {"text_encoder"} | ({"text_encoder_2"} if name != "sd1" else set())


def test_from_pretrained_without_clip_raises(bases: dict[str, str], tmp_path: Path) -> None:
    index = json.loads((Path(bases["sd1"]) / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "T5EncoderModel"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="has no CLIP text encoder"):
        PromptSpace.from_pretrained(str(tmp_path))
    with pytest.raises(OSError, match="nowhere"):
        PromptSpace.from_pretrained(str(tmp_path / "nowhere"))


def test_pipeline_spec_widths(image_pipelines: dict[str, Any]) -> None:
    specs = {
        name: PipelineSpec.from_pipeline(pipeline) for name, pipeline in image_pipelines.items()
    }
    widths = {name: (spec.width, spec.pooled_width) for name, spec in specs.items()}
    assert widths == {
        "sd1": (32, 0),
        "sd2": (tiny.WIDE, 0),
        "sdxl": (tiny.SDXL_WIDTH, tiny.SDXL_POOLED),
        "sd3": (tiny.SD3_JOINT, tiny.SD3_POOLED),
    }
    assert all(spec.dtype == torch.float32 for spec in specs.values())


def test_select_space(
    tiny_clap: str,
    spaces: dict[str, PromptSpace],
    image_pipelines: dict[str, Any],
    bases: dict[str, str],
) -> None:
    encoder = tiny.new_encoder(tiny_clap, {**spaces, "other": spaces["sd2"]})
    shapes = {name: encoder.head(name).space for name in encoder.heads.names}
    for name in bases:
        assert PipelineSpec.from_pipeline(image_pipelines[name]).select_space(shapes, "sd1") == name
    # A pipeline of the same width, but of an unknown base model.
    other = StableDiffusionPipeline(
        **image_pipelines["sd2"].components, requires_safety_checker=False
    )
    assert PipelineSpec.from_pipeline(other).select_space(shapes, "other") == "other"
    with pytest.raises(ValueError, match="sd2, other all fit this StableDiffusionPipeline"):
        PipelineSpec.from_pipeline(other).select_space(shapes, "sd1")


def test_missing_space_error_lists_spaces(
    tiny_clap: str, spaces: dict[str, PromptSpace], image_pipelines: dict[str, Any]
) -> None:
    few = {name: spaces[name] for name in ("sd1", "sd3")}
    encoder = tiny.new_encoder(tiny_clap, few)
    message = (
        "StableDiffusionXLPipeline takes embeds of width 40 and pooled embeds of width 12; "
        r"this encoder has sd1 \(width 32\), sd3 \(width 64 and pooled embeds of width 28\)"
    )
    with pytest.raises(ValueError, match=message):
        encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=image_pipelines["sdxl"])
    with pytest.raises(
        ValueError, match="prompt_embeds has width 32, but StableDiffusionPipeline takes"
    ):
        encoder.encode_prompt(
            tone(300), sampling_rate=RATE, pipeline=image_pipelines["sd2"], space="sd1"
        )


@pytest.fixture(scope="module")
def prompt(tiny_clap: str, spaces: dict[str, PromptSpace]) -> dict[str, torch.Tensor]:
    encoder = tiny.new_encoder(tiny_clap, {"sdxl": spaces["sdxl"]})
    return encoder.encode_prompt([tone(300), tone(900)], sampling_rate=RATE)


def test_check_prompt_invalid_embeds_raise(
    prompt: dict[str, torch.Tensor], image_pipelines: dict[str, Any]
) -> None:
    fits = check_prompt(image_pipelines["sdxl"], prompt)
    assert all(fits[name] is value for name, value in prompt.items())
    embeds, pooled = prompt["prompt_embeds"], prompt["pooled_prompt_embeds"]
    invalid = [
        ({"prompt_embeds": embeds[..., :-1]}, "prompt_embeds has width 39, but StableDiffusionXL"),
        ({"pooled_prompt_embeds": pooled[..., :-1]}, "pooled_prompt_embeds has width 11"),
        ({"prompt_embeds": embeds[:, :-1]}, r"the same shape, not \(2, 76, 40\) and \(2, 77, 40\)"),
        ({"prompt_embeds": embeds[0]}, r"shape \(prompts, positions, width\), not \(77, 40\)"),
        ({"prompt_embeds": embeds.half()}, "is torch.float16, but this .* runs in torch.float32"),
        ({"prompt_embeds": embeds.to("meta")}, "is on meta, but this .* on cpu"),
        ({"image_embeds": embeds}, "image_embeds is not used by this pipeline"),
        ({"pooled_prompt_embeds": pooled[:1], "negative_pooled_prompt_embeds": pooled[:1]},
         r"different numbers of prompts: \[1, 2\]"),
    ]  # fmt: skip
    for change, message in invalid:
        with pytest.raises(ValueError, match=message):
            check_prompt(image_pipelines["sdxl"], prompt | change)
    with pytest.raises(ValueError, match="pooled_prompt_embeds is missing"):
        check_prompt(image_pipelines["sdxl"], {"prompt_embeds": embeds})
    with pytest.raises(ValueError, match="pooled_prompt_embeds is not used by this pipeline"):
        wide = torch.zeros(2, 77, tiny.WIDE)
        check_prompt(
            image_pipelines["sd2"], {"prompt_embeds": wide, "pooled_prompt_embeds": pooled}
        )
    # Without guidance, negative embeds are not required.
    positive = {name: prompt[name] for name in ("prompt_embeds", "pooled_prompt_embeds")}
    assert check_prompt(image_pipelines["sdxl"], positive) == positive


def test_encode_prompt_matches_dtype_and_device(
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


def test_pipeline_spec_without_denoiser_raises(
    bases: dict[str, str], image_pipelines: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no UNet or transformer loaded"):
        PipelineSpec.from_pipeline(load_text_side(bases["sd1"]))
    controlnet = ControlNetModel.from_pretrained(tiny.save_controlnet(tmp_path, tiny.WIDE))
    pipeline = StableDiffusionControlNetPipeline(
        **image_pipelines["sd1"].components, controlnet=controlnet, requires_safety_checker=False
    )
    with pytest.raises(
        ValueError, match=r"ControlNet takes embeds of width 48 and the UNet2D.* 32"
    ):
        PipelineSpec.from_pipeline(pipeline)
