"""Every further class that CLIP's embeds condition: as its text would drive it, or a reason."""

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
# The fast tier keeps those whose calls or answers are unlike Stable Diffusion's own.
QUICK = {"InstructPix2Pix", "LatentConsistencyModel", "StableCascadePrior", "LatentUpscale"}
REFINER: dict[str, Any] = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, tiny_base: str) -> dict[str, dict[str, Any]]:
    """The parts of the tiny bases by name."""
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


def draw(pipeline: Any, **arguments: Any) -> np.ndarray:
    taken = signature(type(pipeline).__call__).parameters
    options = {"num_inference_steps": 2, "guidance_scale": 5.0, "decode_chunk_size": 1}
    options = {name: value for name, value in options.items() if name in taken}
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    found = pipeline(**(options | arguments), generator=generator, output_type="np")
    kept = ("frames", "images", "rgb", "image_embeddings")
    drawn = np.asarray(next(found[name] for name in kept if name in found))
    assert np.isfinite(drawn).all() and drawn.std() > 0.001
    return drawn


def dictated(clap: str, space: PromptSpace, **options: Any) -> dict[str, Any]:
    """What an encoder says that answers a caption's own target, whatever it hears."""
    encoder = tiny.new_encoder(clap, {"base": space})
    tiny.dictate(encoder, "base", space.encode(CAPTION))
    return encoder.encode_prompt(tone(300), sampling_rate=RATE, **options)


def assert_same(whole: Any, blind: Any, clap: str, arguments: dict[str, Any]) -> None:
    prompt = dictated(clap, PromptSpace(whole, "base"), pipeline=blind)
    heard = draw(blind, **prompt, **arguments)
    assert np.array_equal(heard, draw(whole, prompt=CAPTION, **arguments))
    assert not np.array_equal(heard, draw(whole, prompt=OTHER, **arguments))


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in KINDS]
)
def test_the_texts_target_draws_what_the_text_draws(
    name: str, bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    case = KINDS[name]
    parts = bases[case.base] | case.parts()
    whole, blind = (build(class_of(name), dict(parts), text=text) for text in (True, case.whole))
    assert_same(whole, blind, tiny_clap, case.arguments)


@pytest.mark.slow
def test_the_refiner_is_driven_by_a_head_of_its_own(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    parts = bases["sdxl"] | {"text_encoder": None, "tokenizer": None} | REFINER
    times = tiny.XL | {"projection_class_embeddings_input_dim": 5 * 4 + tiny.SDXL_POOLED}
    parts |= further.unet(24, **times)
    kind = diffusers.StableDiffusionXLImg2ImgPipeline
    whole, blind = (build(kind, parts, text=text) for text in (True, False))
    assert_same(whole, blind, tiny_clap, GIVEN)
    with pytest.raises(ValueError, match=r"embeds 24 wide and pooled ones 12 wide; .* \(40 wide"):
        xl = PromptSpace(build(diffusers.StableDiffusionXLPipeline, bases["sdxl"]), "base")
        dictated(tiny_clap, xl, pipeline=blind)


@pytest.mark.slow
def test_sound_is_an_edit_where_a_pipeline_is_told_edits(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    pipeline = build(diffusers.SemanticStableDiffusionPipeline, bases["sd1"])
    space = PromptSpace(build(diffusers.StableDiffusionPipeline, bases["sd1"]), "base")
    prompt = dictated(tiny_clap, space, pipeline=pipeline)
    assert list(prompt) == ["editing_prompt_embeddings"]
    plain = {"prompt": OTHER, "edit_warmup_steps": 0}
    heard = draw(pipeline, **plain, **prompt)
    assert np.array_equal(heard, draw(pipeline, **plain, editing_prompt=[CAPTION]))
    assert not np.array_equal(heard, draw(pipeline, **plain))


@pytest.mark.slow
def test_sounds_are_edits_of_an_inverted_picture(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    kind = diffusers.LEditsPPPipelineStableDiffusion
    pipeline = build(kind, bases["sd1"] | {"scheduler": scheduler})

    def edit(**arguments: Any) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        photo = further.picture(0, 32)
        pipeline.invert(image=photo, num_inversion_steps=4, skip=0.1, generator=generator)
        return draw(pipeline, use_intersect_mask=False, **arguments)

    space = PromptSpace(build(diffusers.StableDiffusionPipeline, bases["sd1"]), "base")
    one = dictated(tiny_clap, space, pipeline=pipeline)
    assert np.array_equal(edit(**one), edit(editing_prompt=[CAPTION]))
    several = tiny.new_encoder(tiny_clap, {"base": space}).encode_prompt(
        [tone(300), tone(3000)], sampling_rate=RATE, pipeline=pipeline
    )
    assert list(several) == ["editing_prompt_embeds"]
    assert not np.array_equal(edit(**several), edit(**one))
    with pytest.raises(ValueError, match="LEditsPPPipelineStableDiffusion takes no negative"):
        dictated(tiny_clap, space, pipeline=pipeline, negative=tone(3000))


def test_a_pipeline_that_cannot_hear_says_why(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    sd1 = bases["sd1"]
    space = PromptSpace(build(diffusers.StableDiffusionPipeline, sd1), "base")
    pooled = sd1 | further.unet(**tiny.XL)
    reasons: dict[str, tuple[dict[str, Any], str]] = {
        "TextToVideoZero": ({}, "takes no prompt embeds that sound could give, but: prompt"),
        "Flux": ({}, "reads the embeds of T5EncoderModel: what is aligned with CLIP gives none"),
        "Kandinsky5T2V": ({}, "takes no prompt embeds that sound could give"),
        "HunyuanVideo": ({}, "reads the embeds of LlamaModel"),
        "StableUnCLIP": ({}, "the prior of this StableUnCLIPPipeline reads the text itself"),
        "StableDiffusion": (pooled, "reads pooled embeds, and the pipeline takes none"),
    }
    for name, (given, said) in reasons.items():
        pipeline = build(getattr(diffusers, f"{name}Pipeline"), given)
        with pytest.raises(ValueError, match=said):
            dictated(tiny_clap, space, pipeline=pipeline)


def test_what_a_pipeline_does_not_take_is_left_out_or_refused(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    consistent = build(class_of("LatentConsistencyModel"), bases["sd1"])
    space = PromptSpace(consistent, "base")
    assert list(dictated(tiny_clap, space, pipeline=consistent)) == ["prompt_embeds"]
    with pytest.raises(ValueError, match="LatentConsistencyModelPipeline takes no negative"):
        dictated(tiny_clap, space, pipeline=consistent, negative=tone(3000))
    excite = build(class_of("AttendAndExcite"), bases["sd1"])
    assert dictated(tiny_clap, space, pipeline=excite)["prompt"] is None


def test_stable_cascade_is_told_in_its_own_words(
    bases: dict[str, dict[str, Any]], tiny_clap: str
) -> None:
    parts = bases["clip-g"] | further.cascade("prior")
    whole = build(diffusers.StableCascadePriorPipeline, parts)
    prompt = dictated(tiny_clap, PromptSpace(whole, "base"), pipeline=whole)
    assert prompt["prompt_embeds_pooled"].shape == (1, 1, tiny.SDXL_POOLED)
    again = check_prompt(whole, prompt)
    assert list(again) == list(prompt)
    assert all(torch.equal(again[name], value) for name, value in prompt.items())
    with pytest.raises(ValueError, match="asks its text encoder even where embeds"):
        check_prompt(build(diffusers.StableCascadePriorPipeline, parts, text=False), prompt)
    decoder = build(diffusers.StableCascadeDecoderPipeline, parts | further.cascade("decoder"))
    assert (
        PipelineSpec.from_pipeline(decoder).width,
        PipelineSpec.from_pipeline(decoder).pooled_width,
    ) == (0, tiny.SDXL_POOLED)
    assert set(check_prompt(decoder, prompt)) == set(prompt)


def test_a_controlnet_that_reads_no_embeds_fits_every_base(
    bases: dict[str, dict[str, Any]],
) -> None:
    own = further.sd3_controlnet(joint_attention_dim=None)
    kind = diffusers.StableDiffusion3ControlNetPipeline
    assert PipelineSpec.from_pipeline(build(kind, bases["sd3"] | own)).width == tiny.SD3_JOINT


def test_the_text_side_of_a_strange_base_is_loaded_alone(
    bases: dict[str, dict[str, Any]], tmp_path: Any
) -> None:
    parts = bases["sd1"] | further.unet(in_channels=8)
    whole = build(diffusers.StableDiffusionInstructPix2PixPipeline, parts)
    whole.save_pretrained(tmp_path)
    text = load_text_side(str(tmp_path))
    assert {k for k, v in text.components.items() if isinstance(v, torch.nn.Module)} == {
        "text_encoder"
    }
    one, other = (PromptSpace(each, "base").encode([CAPTION]) for each in (whole, text))
    assert torch.equal(one.embeds, other.embeds)
