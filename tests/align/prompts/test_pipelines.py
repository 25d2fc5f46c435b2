"""Further pipelines conditioned on CLIP embeds: same results as from text, or a clear error."""

from __future__ import annotations

from inspect import signature
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from align.prompts.loading import load_text_side
from align.prompts.pipelines import PipelineSpec, check_prompt
from align.prompts.space import PromptSpace
from tests.conftest import RATE, tone
from tests.helpers import pipeline_parts as further
from tests.helpers import pipelines as tiny
from tests.helpers.pipeline_kinds import GIVEN, KINDS, build, class_of

CAPTION, OTHER = tiny.CAPTIONS[2], tiny.CAPTIONS[0]
# Pipelines whose call or encode_prompt differs from Stable Diffusion's run in the fast tests.
QUICK = {"InstructPix2Pix", "LatentConsistencyModel", "StableCascadePrior", "LatentUpscale"}
REFINER: dict[str, Any] = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, tiny_base: str) -> dict[str, dict[str, Any]]:
    """Components of the tiny base pipelines by name."""
    root = tmp_path_factory.mktemp("bases")
    load = diffusers.DiffusionPipeline.from_pretrained
    no_t5 = {"text_encoder_3": None, "tokenizer_3": None}
    sdxl = dict(load(tiny.save_sdxl(root / "sdxl")).components)
    return {
        "sd1": dict(load(tiny_base).components) | {"requires_safety_checker": False},
        "sdxl": sdxl,
        "sd3": dict(load(tiny.save_sd3(root / "sd3"), **no_t5).components),
        "clip-g": {
            "text_encoder": sdxl["text_encoder_2"], "tokenizer": sdxl["tokenizer_2"],
        },
    }  # fmt: skip


def generate(pipeline: Any, **arguments: Any) -> np.ndarray:
    taken = signature(type(pipeline).__call__).parameters
    options = {"num_inference_steps": 2, "guidance_scale": 5.0, "decode_chunk_size": 1}
    options = {name: value for name, value in options.items() if name in taken}
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    found = pipeline(**(options | arguments), generator=generator, output_type="np")
    kept = ("frames", "images", "rgb", "image_embeddings")
    images = np.asarray(next(found[name] for name in kept if name in found))
    assert np.isfinite(images).all() and images.std() > 0.001
    return images


def target_prompt(clap: str, space: PromptSpace, **options: Any) -> dict[str, Any]:
    """Return the prompt of an encoder that always predicts the caption's own embeds."""
    encoder = tiny.new_encoder(clap, {"base": space})
    tiny.set_fixed_prediction(encoder, "base", space.encode(CAPTION))
    return encoder.encode_prompt(tone(300), sampling_rate=RATE, **options)


def assert_same(whole: Any, textless: Any, clap: str, arguments: dict[str, Any]) -> None:
    prompt = target_prompt(clap, PromptSpace(whole, "base"), pipeline=textless)
    from_audio = generate(textless, **prompt, **arguments)
    assert np.array_equal(from_audio, generate(whole, prompt=CAPTION, **arguments))
    assert not np.array_equal(from_audio, generate(whole, prompt=OTHER, **arguments))


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in KINDS]
)
def test_target_embeds_generate_same_images_as_text(
    name: str, bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    case = KINDS[name]
    parts = bases[case.base] | case.parts()
    whole, textless = (build(class_of(name), dict(parts), text=text) for text in (True, case.whole))
    assert_same(whole, textless, tiny_clap, case.arguments)


@pytest.mark.slow
def test_sdxl_refiner_has_own_space(bases: dict[str, dict[str, Any]], tiny_clap: str) -> None:
    parts = bases["sdxl"] | {"text_encoder": None, "tokenizer": None} | REFINER
    times = tiny.XL | {"projection_class_embeddings_input_dim": 5 * 4 + tiny.SDXL_POOLED}
    parts |= further.unet(24, **times)
    kind = diffusers.StableDiffusionXLImg2ImgPipeline
    whole, textless = (build(kind, parts, text=text) for text in (True, False))
    assert_same(whole, textless, tiny_clap, GIVEN)
    with pytest.raises(
        ValueError, match=r"embeds of width 24 and pooled embeds of width 12; .* \(width 40"
    ):
        xl = PromptSpace(build(diffusers.StableDiffusionXLPipeline, bases["sdxl"]), "base")
        target_prompt(tiny_clap, xl, pipeline=textless)


@pytest.mark.slow
def test_editing_pipelines_take_audio_as_edit_prompt(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    pipeline = build(diffusers.SemanticStableDiffusionPipeline, bases["sd1"])
    space = PromptSpace(build(diffusers.StableDiffusionPipeline, bases["sd1"]), "base")
    prompt = target_prompt(tiny_clap, space, pipeline=pipeline)
    assert list(prompt) == ["editing_prompt_embeddings"]
    plain = {"prompt": OTHER, "edit_warmup_steps": 0}
    from_audio = generate(pipeline, **plain, **prompt)
    assert np.array_equal(from_audio, generate(pipeline, **plain, editing_prompt=[CAPTION]))
    assert not np.array_equal(from_audio, generate(pipeline, **plain))


@pytest.mark.slow
def test_sounds_are_edits_of_an_inverted_picture(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    kind = diffusers.LEditsPPPipelineStableDiffusion
    pipeline = build(kind, bases["sd1"] | {"scheduler": scheduler})

    def edit(**arguments: Any) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        image = further.image(0, 32)
        pipeline.invert(image=image, num_inversion_steps=4, skip=0.1, generator=generator)
        return generate(pipeline, use_intersect_mask=False, **arguments)

    space = PromptSpace(build(diffusers.StableDiffusionPipeline, bases["sd1"]), "base")
    one = target_prompt(tiny_clap, space, pipeline=pipeline)
    assert np.array_equal(edit(**one), edit(editing_prompt=[CAPTION]))
    several = tiny.new_encoder(tiny_clap, {"base": space}).encode_prompt(
        [tone(300), tone(3000)], sampling_rate=RATE, pipeline=pipeline
    )
    assert list(several) == ["editing_prompt_embeds"]
    assert not np.array_equal(edit(**several), edit(**one))
    with pytest.raises(ValueError, match="LEditsPPPipelineStableDiffusion takes no negative"):
        target_prompt(tiny_clap, space, pipeline=pipeline, negative=tone(3000))


def test_unsupported_pipelines_raise(bases: dict[str, dict[str, Any]], tiny_clap: str) -> None:
    sd1 = bases["sd1"]
    space = PromptSpace(build(diffusers.StableDiffusionPipeline, sd1), "base")
    pooled = sd1 | further.unet(**tiny.XL)
    errors: dict[str, tuple[dict[str, Any], str]] = {
        "TextToVideoZero": ({}, "takes no prompt embeds; its prompt arguments are: prompt"),
        "Flux": ({}, "takes the embeds of T5EncoderModel, which an encoder aligned with CLIP"),
        "Kandinsky5T2V": ({}, "takes no prompt embeds"),
        "HunyuanVideo": ({}, "takes the embeds of LlamaModel"),
        "StableUnCLIP": ({}, "the prior of this StableUnCLIPPipeline needs the text itself"),
        "StableDiffusion": (pooled, "needs pooled embeds, but the pipeline takes none"),
    }
    for name, (given, message) in errors.items():
        pipeline = build(getattr(diffusers, f"{name}Pipeline"), given)
        with pytest.raises(ValueError, match=message):
            target_prompt(tiny_clap, space, pipeline=pipeline)


def test_check_prompt_drops_unsupported_arguments(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    consistent = build(class_of("LatentConsistencyModel"), bases["sd1"])
    space = PromptSpace(consistent, "base")
    assert list(target_prompt(tiny_clap, space, pipeline=consistent)) == ["prompt_embeds"]
    with pytest.raises(ValueError, match="LatentConsistencyModelPipeline takes no negative"):
        target_prompt(tiny_clap, space, pipeline=consistent, negative=tone(3000))
    excite = build(class_of("AttendAndExcite"), bases["sd1"])
    assert target_prompt(tiny_clap, space, pipeline=excite)["prompt"] is None


def test_stable_cascade_argument_names(bases: dict[str, dict[str, Any]], tiny_clap: str) -> None:
    parts = bases["clip-g"] | further.cascade("prior")
    whole = build(diffusers.StableCascadePriorPipeline, parts)
    prompt = target_prompt(tiny_clap, PromptSpace(whole, "base"), pipeline=whole)
    assert prompt["prompt_embeds_pooled"].shape == (1, 1, tiny.SDXL_POOLED)
    again = check_prompt(whole, prompt)
    assert list(again) == list(prompt)
    assert all(torch.equal(again[name], value) for name, value in prompt.items())
    with pytest.raises(ValueError, match="runs its text encoder even when embeds"):
        check_prompt(build(diffusers.StableCascadePriorPipeline, parts, text=False), prompt)
    decoder = build(diffusers.StableCascadeDecoderPipeline, parts | further.cascade("decoder"))
    assert (
        PipelineSpec.from_pipeline(decoder).width,
        PipelineSpec.from_pipeline(decoder).pooled_width,
    ) == (0, tiny.SDXL_POOLED)
    assert set(check_prompt(decoder, prompt)) == set(prompt)


def test_controlnet_without_embeds_fits_every_base_model(
    bases: dict[str, dict[str, Any]],
) -> None:
    own = further.sd3_controlnet(joint_attention_dim=None)
    kind = diffusers.StableDiffusion3ControlNetPipeline
    assert PipelineSpec.from_pipeline(build(kind, bases["sd3"] | own)).width == tiny.SD3_JOINT


def test_load_text_side_of_other_pipeline(bases: dict[str, dict[str, Any]], tmp_path: Any) -> None:
    parts = bases["sd1"] | further.unet(in_channels=8)
    whole = build(diffusers.StableDiffusionInstructPix2PixPipeline, parts)
    whole.save_pretrained(tmp_path)
    text = load_text_side(str(tmp_path))
    assert {k for k, v in text.components.items() if isinstance(v, torch.nn.Module)} == {
        "text_encoder"
    }
    one, other = (PromptSpace(each, "base").encode([CAPTION]) for each in (whole, text))
    assert torch.equal(one.embeds, other.embeds)
