"""Every pipeline class accepts the encoder's keyword arguments, with the same results as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from align.models.encoder import AudioPromptEncoder
from align.prompts.space import PromptSpace
from tests.conftest import RATE, tone
from tests.helpers import pipelines as tiny

KINDS = {
    "sd1": tiny.save_stable_diffusion,
    "sd2": lambda folder: tiny.save_stable_diffusion(folder, tiny.WIDE),
    "inpainting": lambda folder: tiny.save_stable_diffusion(folder, in_channels=9),
    "lcm": lambda folder: tiny.save_stable_diffusion(folder, time_cond_proj_dim=8),
    "sdxl": tiny.save_sdxl,
    "sd3": tiny.save_sd3,
}
TEXT_SIDE = (
    "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3",
)  # fmt: skip
T5 = {"text_encoder_3": None, "tokenizer_3": None}
CAPTION, OTHER = tiny.CAPTIONS[2], tiny.CAPTIONS[0]


def random_image(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


GIVEN = {"image": random_image(0), "strength": 0.9}
MASK = {"mask_image": Image.fromarray(np.eye(16, dtype=np.uint8) * 255)}
LINES = {"image": random_image(1), "controlnet_conditioning_scale": 0.7}
# Pipeline, base model, scheduler, arguments other than the prompt.
CASES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "sd1": ("StableDiffusionPipeline", "sd1", "", {}),
    "sd2": ("StableDiffusionPipeline", "sd2", "", {}),
    "image-to-image": ("StableDiffusionImg2ImgPipeline", "sd1", "", GIVEN),
    "inpainting": ("StableDiffusionInpaintPipeline", "inpainting", "", GIVEN | MASK),
    "controlnet": ("StableDiffusionControlNetPipeline", "sd1", "", LINES),
    "controlnet image-to-image": (
        "StableDiffusionControlNetImg2ImgPipeline", "sd1", "",
        GIVEN | {"control_image": random_image(1)},
    ),
    "animatediff": ("AnimateDiffPipeline", "sd1", "", {"num_frames": 2}),
    "lcm": ("StableDiffusionPipeline", "lcm", "LCMScheduler", {}),
    "sdxl": ("StableDiffusionXLPipeline", "sdxl", "", {}),
    "sdxl turbo": (
        "StableDiffusionXLPipeline", "sdxl", "EulerAncestralDiscreteScheduler",
        {"guidance_scale": 0.0, "num_inference_steps": 1},
    ),
    "sdxl image-to-image": ("StableDiffusionXLImg2ImgPipeline", "sdxl", "", GIVEN),
    "sdxl inpainting": ("StableDiffusionXLInpaintPipeline", "sdxl", "", GIVEN | MASK),
    "sdxl controlnet": ("StableDiffusionXLControlNetPipeline", "sdxl", "", LINES),
    "sd3": ("StableDiffusion3Pipeline", "sd3", "", {}),
    "sd3 image-to-image": ("StableDiffusion3Img2ImgPipeline", "sd3", "", GIVEN),
}  # fmt: skip


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("bases")
    return {name: save(root / name) for name, save in KINDS.items()}


@pytest.fixture(scope="module")
def spaces(bases: dict[str, str]) -> dict[str, PromptSpace]:
    return {name: PromptSpace.from_pretrained(base) for name, base in bases.items()}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Additional components by argument and base model."""
    root = tmp_path_factory.mktemp("parts")
    xl = tiny.save_controlnet(root / "xl", tiny.SDXL_WIDTH, **tiny.XL)
    load = diffusers.ControlNetModel.from_pretrained
    return {
        "controlnet": {"sd1": load(tiny.save_controlnet(root / "sd1")), "sdxl": load(xl)},
        "motion_adapter": {
            "sd1": diffusers.MotionAdapter.from_pretrained(tiny.save_motion_adapter(root / "m"))
        },
    }


@pytest.fixture(scope="module")
def encoder(tiny_clap: str, spaces: dict[str, PromptSpace]) -> AudioPromptEncoder:
    """Encoder with a head for every base model."""
    return tiny.new_encoder(tiny_clap, spaces)


@pytest.fixture
def load(bases: dict[str, str], parts: dict[str, Any]) -> Callable[..., Any]:
    """Return a function that loads a pipeline with or without its text encoders."""

    def load(kind: str, base: str, scheduler: str = "", *, text: bool = True) -> Any:
        further = {
            name: found[base]
            for name, found in parts.items()
            if name.replace("motion_adapter", "animatediff") in kind.lower()
        }
        signature = diffusers.DiffusionPipeline.load_config(bases[base])
        without = {name: None for name in TEXT_SIDE if name in signature}
        absent = {k: v for k, v in (T5 if text else without).items() if k in signature}
        pipeline = getattr(diffusers, kind).from_pretrained(bases[base], **absent, **further)
        pipeline.set_progress_bar_config(disable=True)
        if scheduler:
            loaded = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
            pipeline.scheduler = loaded
        return pipeline

    return load


def generate(pipeline: Any, **arguments: Any) -> np.ndarray:
    options: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 5.0}
    if "Animate" in type(pipeline).__name__:
        options |= {"decode_chunk_size": 1}
    generator = torch.Generator().manual_seed(0)
    found = pipeline(**(options | arguments), generator=generator, output_type="np")
    images = found.frames if hasattr(found, "frames") else found.images
    assert np.isfinite(images).all() and images.std() > 0.001
    return images


# The fast tests run one pipeline per set of prompt arguments.
QUICK = {"sd1", "controlnet", "sdxl", "sd3"}


@pytest.mark.parametrize(
    "case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_target_embeds_generate_same_images_as_text(
    case: str, load: Callable[..., Any], spaces: dict[str, PromptSpace], tiny_clap: str
) -> None:
    kind, base, scheduler, more = CASES[case]
    whole, textless = (load(kind, base, scheduler, text=text) for text in (True, False))
    encoder = tiny.new_encoder(tiny_clap, {base: spaces[base]})
    tiny.set_fixed_prediction(encoder, base, spaces[base].encode(CAPTION))
    from_text, other = (generate(whole, prompt=caption, **more) for caption in (CAPTION, OTHER))
    assert getattr(textless, "text_encoder", None) is None
    from_audio = generate(
        textless, **encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=textless), **more
    )
    assert np.array_equal(from_audio, from_text)
    assert not np.array_equal(from_audio, other)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_encoder_selects_fitting_space(
    case: str, load: Callable[..., Any], encoder: AudioPromptEncoder
) -> None:
    kind, base, scheduler, more = CASES[case]
    textless = load(kind, base, scheduler, text=False)
    clips = [tone(300), tone(3000)]
    prompt = encoder.encode_prompt(clips, sampling_rate=RATE, pipeline=textless)
    own = encoder.encode_prompt(clips, sampling_rate=RATE, space=base)
    assert list(prompt) == list(own)
    assert all(torch.equal(prompt[name], own[name]) for name in own)
    more = {k: [v] * 2 if isinstance(v, Image.Image) else v for k, v in more.items()}
    low, high = generate(textless, **prompt, **more)
    assert not np.array_equal(low, high)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sd1", "sdxl", "sd3"])
def test_num_images_per_prompt_and_no_guidance(
    base: str, load: Callable[..., Any], encoder: AudioPromptEncoder, spaces: Any
) -> None:
    kind = CASES[base][0]
    whole, textless = (load(kind, base, text=text) for text in (True, False))
    text = spaces[base].encode(CAPTION)
    target = text.pipeline_kwargs(spaces[base].unconditional)
    # The SD3 pipeline does not repeat given embeds for several images per prompt.
    repeats = base != "sd3"
    if repeats:
        several = generate(textless, **target, num_images_per_prompt=3)
    else:
        several = generate(
            textless, **{name: value.repeat_interleave(3, 0) for name, value in target.items()}
        )
    assert len(several) == 3
    assert np.array_equal(several, generate(whole, prompt=CAPTION, num_images_per_prompt=3))
    off = generate(textless, **target, guidance_scale=1.0)
    assert np.array_equal(off, generate(whole, prompt=CAPTION, guidance_scale=1.0))
    prompt = encoder.encode_prompt([tone(300), tone(3000)], sampling_rate=RATE, pipeline=textless)
    if repeats:
        assert len(generate(textless, **prompt, num_images_per_prompt=2)) == 4
    # Without guidance, the negative embeds are not used.
    prompt |= {k: torch.randn_like(v) for k, v in prompt.items() if k.startswith("negative")}
    plain = encoder.encode_prompt([tone(300), tone(3000)], sampling_rate=RATE, pipeline=textless)
    assert np.array_equal(
        generate(textless, **prompt, guidance_scale=1.0),
        generate(textless, **plain, guidance_scale=1.0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sd1", "sdxl", "sd3"])
def test_negative_embeds_match_negative_prompt(
    base: str, load: Callable[..., Any], spaces: dict[str, PromptSpace], tiny_clap: str
) -> None:
    whole, textless = (load(CASES[base][0], base, text=text) for text in (True, False))
    encoder = tiny.new_encoder(tiny_clap, {base: spaces[base]})
    tiny.set_fixed_prediction(encoder, base, spaces[base].encode(CAPTION))
    negative = spaces[base].encode(OTHER)
    by_text = generate(whole, prompt=CAPTION, negative_prompt=OTHER)
    prompt = encoder.encode_prompt(
        tone(300), sampling_rate=RATE, pipeline=textless, negative=negative
    )
    assert np.array_equal(generate(textless, **prompt), by_text)
    assert not np.array_equal(generate(whole, prompt=CAPTION), by_text)


@pytest.mark.slow
def test_lora_and_ip_adapter_combine_with_audio(
    load: Callable[..., Any], encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    textless = load("StableDiffusionPipeline", "sd1", text=False)
    prompt = encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=textless)
    plain = generate(textless, **prompt)
    trained = load("StableDiffusionPipeline", "sd1", text=False)
    torch.manual_seed(0)
    targets = ["to_k", "to_v"]
    lora = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    trained.unet.add_adapter(lora)
    layers = get_peft_model_state_dict(trained.unet)
    diffusers.StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    textless.load_lora_weights(tmp_path)
    prompt = encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=textless)
    with_lora = generate(textless, **prompt)
    assert not np.array_equal(with_lora, plain)
    textless.unload_lora_weights()
    assert np.array_equal(generate(textless, **prompt), plain)

    textless.load_ip_adapter(
        ip_adapter(textless.unet), subfolder="", weight_name="", image_encoder_folder=None
    )
    prompt = encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=textless)
    image_embeds = [
        torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1)
    ]
    first, second = (
        generate(textless, **prompt, ip_adapter_image_embeds=[embeds]) for embeds in image_embeds
    )
    other = encoder.encode_prompt(tone(3000), sampling_rate=RATE, pipeline=textless)
    images = [
        plain,
        first,
        second,
        generate(textless, **other, ip_adapter_image_embeds=[image_embeds[0]]),
    ]
    assert len({found.tobytes() for found in images}) == 4


def ip_adapter(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights of an IP-Adapter for image embeds of width 8, in the file format."""
    generator = torch.Generator().manual_seed(0)
    width = unet.config.cross_attention_dim
    layers = [m.to_k.weight for n, m in unet.named_modules() if n.endswith("attn2")]
    assert layers
    found = {}
    for i, weight in enumerate(layers):
        for name in ("to_k_ip", "to_v_ip"):
            shape = weight.shape
            found[f"{2 * i + 1}.{name}.weight"] = torch.randn(shape, generator=generator)
    project = {
        "proj.weight": torch.randn(4 * width, 8, generator=generator),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    return {"image_proj": project, "ip_adapter": found}
