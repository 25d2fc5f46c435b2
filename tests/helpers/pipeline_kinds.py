"""Further pipeline classes that are conditioned on CLIP embeds: how to build and call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from tests.conftest import WIDTH
from tests.helpers import pipeline_parts as parts
from tests.helpers import pipelines as tiny
from tests.helpers.pipeline_parts import WIDE, image


@dataclass(frozen=True)
class Kind:
    """How to build and call a pipeline class.

    Attributes:
        base: Tiny base model whose components are used.
        parts: Returns additional or replaced components.
        arguments: Arguments of the call besides the prompt.
        whole: Whether the pipeline runs its text encoder even with embeds.
    """

    base: str
    parts: Callable[[], dict[str, Any]] = dict
    arguments: dict[str, Any] = field(default_factory=dict)
    whole: bool = False


def build(pipeline_class: type, components: dict[str, Any], *, text: bool = True) -> Any:
    """Build a pipeline from the components that its class takes, with or without text encoders."""
    parameters = signature(pipeline_class).parameters
    found = {name: None for name, p in parameters.items() if p.default is Parameter.empty}
    found |= {name: part for name, part in components.items() if name in parameters}
    if not text:
        found |= {name: None for name in found if name.startswith(("text_encoder", "tokenizer"))}
    torch.manual_seed(0)  # AnimateDiff initializes layers that SDXL's UNet lacks
    pipeline = pipeline_class(**found)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def class_of(name: str) -> type:
    """Return a pipeline class by the distinctive part of its name."""
    for pattern in ("StableDiffusion{}Pipeline", "{}Pipeline"):
        if hasattr(diffusers, pattern.format(name)):
            return getattr(diffusers, pattern.format(name))
    raise AssertionError(name)


GIVEN: dict[str, Any] = {"image": image(0), "strength": 0.9}
HOLE: dict[str, Any] = {"mask_image": Image.fromarray(np.eye(16, dtype=np.uint8) * 255)}
CONTROL: dict[str, Any] = {"control_image": image(1)}
UNION: dict[str, Any] = {"control_image": [image(1)], "control_mode": [1]}
PAG: dict[str, Any] = {"pag_scale": 3.0}
VIDEO: dict[str, Any] = {"video": [image(0), image(1)], "strength": 0.9}
FRAMES: dict[str, Any] = {"conditioning_frames": [image(2), image(3)]}
SMALL: dict[str, Any] = {"height": 16, "width": 16}


def xl_control() -> dict[str, Any]:
    return parts.controlnet(WIDE, **tiny.XL)


def pag(layers: str, more: Any = dict) -> Any:
    return lambda: more() | {"pag_applied_layers": layers}


MID, BLOCK = pag("mid"), pag("blocks.0")
KINDS: dict[str, Kind] = {
    "InstructPix2Pix": Kind("sd1", lambda: parts.unet(in_channels=8), {"image": image(0)}),
    "LatentConsistencyModel": Kind(
        "sd1",
        lambda: parts.unet(time_cond_proj_dim=8) | {"scheduler": diffusers.LCMScheduler()},
    ),
    "StableCascadePrior": Kind(
        "clip-g", lambda: parts.cascade("prior"), {"height": 64, "width": 64}, whole=True
    ),
    "LatentUpscale": Kind(
        "sd1",
        lambda: (
            parts.unet(in_channels=8, out_channels=5, time_cond_proj_dim=128 + WIDTH)
            | {"scheduler": diffusers.EulerDiscreteScheduler(prediction_type="sample")}
        ),
        {"image": image(0)},
    ),
    "AttendAndExcite": Kind(
        "sd1", dict, {"token_indices": [1, 2], "attn_res": (4, 4), "max_iter_to_alter": 1}
    ),
    "AnimateDiffSDXL": Kind("sdxl", parts.motion, {"num_frames": 2}),
    "XLInstructPix2Pix": Kind(
        "sdxl", lambda: parts.unet(WIDE, in_channels=8, **tiny.XL), {"image": image(0)} | SMALL
    ),
    "Depth2Img": Kind(
        "sd1", lambda: parts.unet(in_channels=5), GIVEN | {"depth_map": torch.eye(16)[None]}
    ),
    "Upscale": Kind(
        "sd1",
        lambda: (
            parts.unet(in_channels=7, num_class_embeds=1000)
            | {"low_res_scheduler": diffusers.DDPMScheduler()}
        ),
        {"image": image(0, 8)},
    ),
    "StableUnCLIPImg2Img": Kind(
        "sd1", parts.image_unclip, {"image_embeds": torch.ones(1, WIDTH)}
    ),
    "LatentConsistencyModelImg2Img": Kind(
        "sd1",
        lambda: parts.unet(time_cond_proj_dim=8) | {"scheduler": diffusers.LCMScheduler()},
        GIVEN | {"num_inference_steps": 4},
    ),
    "DiffEdit": Kind(
        "sd1",
        lambda: {"inverse_scheduler": diffusers.DDIMInverseScheduler()},
        {"mask_image": np.eye(8, dtype=np.float32), "image_latents": torch.ones(1, 2, 4, 8, 8),
         "inpaint_strength": 1.0},
    ),
    "LDM3D": Kind("sd1"),
    "Panorama": Kind("sd1", dict, SMALL),
    "SAG": Kind("sd1", dict, {"sag_scale": 0.7}),
    "Paradigms": Kind(
        "sd1", lambda: {"scheduler": diffusers.DDIMParallelScheduler()}, {"parallel": 2}
    ),
    "GLIGEN": Kind(
        "sd1", lambda: parts.unet(attention_type="gated"),
        {"gligen_phrases": ["a dog"], "gligen_boxes": [[0.1, 0.1, 0.6, 0.6]]}, whole=True,
    ),
    "Adapter": Kind("sd1", lambda: parts.adapter(WIDTH), {"image": image(1)}),
    "XLAdapter": Kind("sdxl", lambda: parts.adapter(WIDE, **tiny.XL), {"image": image(1)}),
    "ControlNetXS": Kind("sd1", lambda: parts.small_controlnet(WIDTH), {"image": image(1)}),
    "XLControlNetXS": Kind(
        "sdxl", lambda: parts.small_controlnet(WIDE, **tiny.XL), {"image": image(1)}
    ),
    "ControlNetInpaint": Kind("sd1", parts.controlnet, GIVEN | HOLE | CONTROL),
    "XLControlNetImg2Img": Kind("sdxl", xl_control, GIVEN | CONTROL),
    "XLControlNetInpaint": Kind("sdxl", xl_control, GIVEN | HOLE | CONTROL),
    "XLControlNetUnion": Kind("sdxl", parts.union, UNION),
    "XLControlNetUnionImg2Img": Kind("sdxl", parts.union, GIVEN | UNION),
    "XLControlNetUnionInpaint": Kind("sdxl", parts.union, GIVEN | HOLE | UNION),
    "3Inpaint": Kind("sd3", dict, GIVEN | HOLE),
    "3ControlNet": Kind("sd3", parts.sd3_controlnet, CONTROL),
    "3ControlNetInpainting": Kind(
        "sd3", lambda: parts.sd3_controlnet(extra_conditioning_channels=1),
        CONTROL | {"control_mask": HOLE["mask_image"]},
    ),
    "PAG": Kind("sd1", MID, PAG),
    "PAGImg2Img": Kind("sd1", MID, PAG | GIVEN),
    "PAGInpaint": Kind("sd1", MID, PAG | GIVEN | HOLE),
    "ControlNetPAG": Kind("sd1", pag("mid", parts.controlnet), PAG | {"image": image(1)}),
    "ControlNetPAGInpaint": Kind(
        "sd1", pag("mid", parts.controlnet), PAG | GIVEN | HOLE | CONTROL
    ),
    "XLPAG": Kind("sdxl", MID, PAG),
    "XLPAGImg2Img": Kind("sdxl", MID, PAG | GIVEN),
    "XLPAGInpaint": Kind("sdxl", MID, PAG | GIVEN | HOLE),
    "XLControlNetPAG": Kind("sdxl", pag("mid", xl_control), PAG | {"image": image(1)}),
    "XLControlNetPAGImg2Img": Kind("sdxl", pag("mid", xl_control), PAG | GIVEN | CONTROL),
    "3PAG": Kind("sd3", BLOCK, PAG),
    "3PAGImg2Img": Kind("sd3", BLOCK, PAG | GIVEN),
    "AnimateDiffPAG": Kind(
        "sd1", pag("mid_block.*attn1", parts.motion), PAG | {"num_frames": 2}
    ),
    "AnimateDiffControlNet": Kind(
        "sd1", lambda: parts.motion() | parts.controlnet(), FRAMES | {"num_frames": 2}
    ),
    "AnimateDiffSparseControlNet": Kind(
        "sd1", parts.sparse,
        {"num_frames": 2, "conditioning_frames": [image(2)], "controlnet_frame_indices": [0]},
    ),
    "AnimateDiffVideoToVideo": Kind("sd1", parts.motion, VIDEO),
    "AnimateDiffVideoToVideoControlNet": Kind(
        "sd1", lambda: parts.motion() | parts.controlnet(), VIDEO | FRAMES
    ),
    "PIA": Kind(
        "sd1", lambda: parts.motion(conv_in_channels=9),
        {"num_frames": 2, "image": image(0)} | SMALL,
    ),
    "TextToVideoSD": Kind("sd1", parts.video_unet, {"num_frames": 2} | SMALL),
    "VideoToVideoSD": Kind("sd1", parts.video_unet, VIDEO),
    "TextToVideoZeroSDXL": Kind(
        "sdxl", dict, {"video_length": 2, "t0": 0, "t1": 1, "num_inference_steps": 3} | SMALL
    ),
}  # fmt: skip
