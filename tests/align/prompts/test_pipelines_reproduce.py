"""Every pipeline class: the encoder's keyword arguments drive it, and as the text would."""

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


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


GIVEN = {"image": picture(0), "strength": 0.9}
HOLE = {"mask_image": Image.fromarray(np.eye(16, dtype=np.uint8) * 255)}
LINES = {"image": picture(1), "controlnet_conditioning_scale": 0.7}
# Pipeline, base, scheduler, arguments beside the prompt.
CASES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "sd1": ("StableDiffusionPipeline", "sd1", "", {}),
    "sd2": ("StableDiffusionPipeline", "sd2", "", {}),
    "image-to-image": ("StableDiffusionImg2ImgPipeline", "sd1", "", GIVEN),
    "inpainting": ("StableDiffusionInpaintPipeline", "inpainting", "", GIVEN | HOLE),
    "controlnet": ("StableDiffusionControlNetPipeline", "sd1", "", LINES),
    "controlnet image-to-image": (
        "StableDiffusionControlNetImg2ImgPipeline", "sd1", "",
        GIVEN | {"control_image": picture(1)},
    ),
    "animatediff": ("AnimateDiffPipeline", "sd1", "", {"num_frames": 2}),
    "lcm": ("StableDiffusionPipeline", "lcm", "LCMScheduler", {}),
    "sdxl": ("StableDiffusionXLPipeline", "sdxl", "", {}),
    "sdxl turbo": (
        "StableDiffusionXLPipeline", "sdxl", "EulerAncestralDiscreteScheduler",
        {"guidance_scale": 0.0, "num_inference_steps": 1},
    ),
    "sdxl image-to-image": ("StableDiffusionXLImg2ImgPipeline", "sdxl", "", GIVEN),
    "sdxl inpainting": ("StableDiffusionXLInpaintPipeline", "sdxl", "", GIVEN | HOLE),
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
    """Further parts by the argument that takes them, by the kind of base."""
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
    """One encoder with a head for every base."""
    return tiny.new_encoder(tiny_clap, spaces)


@pytest.fixture
def load(bases: dict[str, str], parts: dict[str, Any]) -> Callable[..., Any]:
    """Loads a case's pipeline, with its text side or without."""

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
            made = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
            pipeline.scheduler = made
        return pipeline

    return load


def draw(pipeline: Any, **arguments: Any) -> np.ndarray:
    options: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 5.0}
    if "Animate" in type(pipeline).__name__:
        options |= {"decode_chunk_size": 1}
    generator = torch.Generator().manual_seed(0)
    found = pipeline(**(options | arguments), generator=generator, output_type="np")
    images = found.frames if hasattr(found, "frames") else found.images
    assert np.isfinite(images).all() and images.std() > 0.001
    return images


# The fast tier keeps one case of each way in which prompts reach a pipeline.
QUICK = {"sd1", "controlnet", "sdxl", "sd3"}


@pytest.mark.parametrize(
    "case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_the_texts_target_draws_the_texts_picture_bit_for_bit(
    case: str, load: Callable[..., Any], spaces: dict[str, PromptSpace], tiny_clap: str
) -> None:
    kind, base, scheduler, more = CASES[case]
    whole, blind = (load(kind, base, scheduler, text=text) for text in (True, False))
    told = tiny.new_encoder(tiny_clap, {base: spaces[base]})
    tiny.dictate(told, base, spaces[base].encode(CAPTION))
    read, other = (draw(whole, prompt=caption, **more) for caption in (CAPTION, OTHER))
    assert getattr(blind, "text_encoder", None) is None
    heard = draw(blind, **told.encode_prompt(tone(300), sampling_rate=RATE, pipeline=blind), **more)
    assert np.array_equal(heard, read)
    assert not np.array_equal(heard, other)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_encoder_drives_it_by_the_head_that_fits(
    case: str, load: Callable[..., Any], encoder: AudioPromptEncoder
) -> None:
    kind, base, scheduler, more = CASES[case]
    blind = load(kind, base, scheduler, text=False)
    sounds = [tone(300), tone(3000)]
    prompt = encoder.encode_prompt(sounds, sampling_rate=RATE, pipeline=blind)
    own = encoder.encode_prompt(sounds, sampling_rate=RATE, space=base)
    assert list(prompt) == list(own)
    assert all(torch.equal(prompt[name], own[name]) for name in own)
    more = {k: [v] * 2 if isinstance(v, Image.Image) else v for k, v in more.items()}
    low, high = draw(blind, **prompt, **more)
    assert not np.array_equal(low, high)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sd1", "sdxl", "sd3"])
def test_several_images_a_prompt_and_no_guidance(
    base: str, load: Callable[..., Any], encoder: AudioPromptEncoder, spaces: Any
) -> None:
    kind = CASES[base][0]
    whole, blind = (load(kind, base, text=text) for text in (True, False))
    text = spaces[base].encode(CAPTION)
    told = text.pipeline_kwargs(spaces[base].unconditional)
    # SD3's pipeline repeats what it has encoded itself, but no embeds: repeat the recording.
    repeats = base != "sd3"
    if repeats:
        several = draw(blind, **told, num_images_per_prompt=3)
    else:
        several = draw(
            blind, **{name: value.repeat_interleave(3, 0) for name, value in told.items()}
        )
    assert len(several) == 3
    assert np.array_equal(several, draw(whole, prompt=CAPTION, num_images_per_prompt=3))
    off = draw(blind, **told, guidance_scale=1.0)
    assert np.array_equal(off, draw(whole, prompt=CAPTION, guidance_scale=1.0))
    prompt = encoder.encode_prompt([tone(300), tone(3000)], sampling_rate=RATE, pipeline=blind)
    if repeats:
        assert len(draw(blind, **prompt, num_images_per_prompt=2)) == 4
    # Without guidance the negative is not read at all.
    prompt |= {k: torch.randn_like(v) for k, v in prompt.items() if k.startswith("negative")}
    plain = encoder.encode_prompt([tone(300), tone(3000)], sampling_rate=RATE, pipeline=blind)
    assert np.array_equal(
        draw(blind, **prompt, guidance_scale=1.0), draw(blind, **plain, guidance_scale=1.0)
    )


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sd1", "sdxl", "sd3"])
def test_a_negative_text_is_the_pipelines_negative_prompt(
    base: str, load: Callable[..., Any], spaces: dict[str, PromptSpace], tiny_clap: str
) -> None:
    whole, blind = (load(CASES[base][0], base, text=text) for text in (True, False))
    told = tiny.new_encoder(tiny_clap, {base: spaces[base]})
    tiny.dictate(told, base, spaces[base].encode(CAPTION))
    negative = spaces[base].encode(OTHER)
    by_text = draw(whole, prompt=CAPTION, negative_prompt=OTHER)
    prompt = told.encode_prompt(tone(300), sampling_rate=RATE, pipeline=blind, negative=negative)
    assert np.array_equal(draw(blind, **prompt), by_text)
    assert not np.array_equal(draw(whole, prompt=CAPTION), by_text)


@pytest.mark.slow
def test_an_ip_adapter_and_a_lora_are_heard_beside(
    load: Callable[..., Any], encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    blind = load("StableDiffusionPipeline", "sd1", text=False)
    prompt = encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=blind)
    plain = draw(blind, **prompt)
    trained = load("StableDiffusionPipeline", "sd1", text=False)
    torch.manual_seed(0)
    targets = ["to_k", "to_v"]
    lora = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    trained.unet.add_adapter(lora)
    layers = get_peft_model_state_dict(trained.unet)
    diffusers.StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    blind.load_lora_weights(tmp_path)
    prompt = encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=blind)
    with_lora = draw(blind, **prompt)
    assert not np.array_equal(with_lora, plain)
    blind.unload_lora_weights()
    assert np.array_equal(draw(blind, **prompt), plain)

    blind.load_ip_adapter(
        ip_adapter(blind.unet), subfolder="", weight_name="", image_encoder_folder=None
    )
    prompt = encoder.encode_prompt(tone(300), sampling_rate=RATE, pipeline=blind)
    looks = [torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    first, second = (draw(blind, **prompt, ip_adapter_image_embeds=[look]) for look in looks)
    other = encoder.encode_prompt(tone(3000), sampling_rate=RATE, pipeline=blind)
    pictures = [plain, first, second, draw(blind, **other, ip_adapter_image_embeds=[looks[0]])]
    assert len({found.tobytes() for found in pictures}) == 4


def ip_adapter(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Weights of an IP-Adapter that looks at image embeds 8 wide, as its files hold them."""
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
