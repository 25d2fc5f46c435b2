"""Components of further pipeline classes at tiny sizes."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.conftest import WIDTH
from tests.helpers import pipelines as tiny

WIDE = tiny.SDXL_WIDTH


def image(seed: int, size: int = 16) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def perturb(model: Any) -> Any:
    """Add noise to the weights of a model, whose last convolutions are zero-initialized."""
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return model


def unet(width: int = WIDTH, **more: Any) -> dict[str, Any]:
    torch.manual_seed(1)
    ups = ("CrossAttnUpBlock2D", "UpBlock2D")
    sizes = {"sample_size": 8, "up_block_types": ups, "cross_attention_dim": width}
    return {"unet": diffusers.UNet2DConditionModel(**(sizes | tiny.BLOCKS | more))}


def controlnet(width: int = WIDTH, **more: Any) -> dict[str, Any]:
    sizes = {"cross_attention_dim": width, "conditioning_embedding_out_channels": (8, 16)}
    return {"controlnet": perturb(diffusers.ControlNetModel(**sizes, **tiny.BLOCKS, **more))}


def union() -> dict[str, Any]:
    sizes = {
        "cross_attention_dim": WIDE, "conditioning_embedding_out_channels": (8, 16),
        "num_control_type": 6, "num_trans_channel": 16, "num_trans_head": 2,
        "num_proj_channel": 16,
    }  # fmt: skip
    return {
        "controlnet": perturb(diffusers.ControlNetUnionModel(**sizes, **tiny.BLOCKS, **tiny.XL))
    }


def small_controlnet(width: int, **more: Any) -> dict[str, Any]:
    """Return a ControlNet-XS, which requires two layers per block."""
    found = unet(width, layers_per_block=2, use_linear_projection=True, **more)
    control = diffusers.ControlNetXSAdapter.from_unet(
        found["unet"], size_ratio=0.5, conditioning_embedding_out_channels=(8, 16)
    )
    return found | {"controlnet": perturb(control)}


def sd3_controlnet(**more: Any) -> dict[str, Any]:
    sizes = {
        "sample_size": 8, "patch_size": 1, "in_channels": 16, "num_layers": 1,
        "attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32,
        "joint_attention_dim": tiny.SD3_JOINT, "pooled_projection_dim": tiny.SD3_POOLED,
    }  # fmt: skip
    return {"controlnet": perturb(diffusers.SD3ControlNetModel(**(sizes | more)))}


def motion(**more: Any) -> dict[str, Any]:
    torch.manual_seed(5)
    adapter = diffusers.MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_norm_num_groups=8,
        motion_mid_block_layers_per_block=1, motion_num_attention_heads=2, motion_max_seq_length=8,
        motion_transformer_layers_per_block=1, motion_transformer_layers_per_mid_block=1, **more,
    )  # fmt: skip
    return {"motion_adapter": adapter}


def sparse() -> dict[str, Any]:
    control = diffusers.SparseControlNetModel(
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"), conditioning_channels=4,
        cross_attention_dim=WIDTH, conditioning_embedding_out_channels=(8, 16),
        motion_num_attention_heads=2, motion_max_seq_length=8,
    )  # fmt: skip
    return motion() | {"controlnet": perturb(control)}


def adapter(width: int, **more: Any) -> dict[str, Any]:
    """Return a T2I-Adapter, whose features are added before the first block downsamples."""
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"channels": [16, 32], "num_res_blocks": 1, "downscale_factor": 2}
    return unet(width, **blocks, **more) | {"adapter": diffusers.T2IAdapter(**sizes)}


def video_unet() -> dict[str, Any]:
    torch.manual_seed(1)
    return {
        "unet": diffusers.UNet3DConditionModel(
            block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), attention_head_dim=4,
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), cross_attention_dim=WIDTH,
        )
    }  # fmt: skip


def cascade(which: str) -> dict[str, Any]:
    """Return Stable Cascade's prior or decoder, which use the second text encoder of SDXL."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "conditioning_dim": 16, "block_out_channels": (16, 32), "num_attention_heads": (2, 2),
        "down_num_layers_per_block": (1, 1), "up_num_layers_per_block": (1, 1),
        "clip_text_pooled_in_channels": tiny.SDXL_POOLED, "dropout": (0.0, 0.0),
    }  # fmt: skip
    if which == "prior":
        sizes |= {
            "switch_level": (False,), "clip_image_in_channels": 8, "clip_text_in_channels": 24,
        }  # fmt: skip
    else:
        sizes |= {
            "in_channels": 4, "out_channels": 4, "down_blocks_repeat_mappers": (1, 1),
            "up_blocks_repeat_mappers": (1, 1), "effnet_in_channels": 16, "patch_size": 1,
            "block_types_per_layer": (("SDCascadeResBlock", "SDCascadeTimestepBlock"),) * 2,
        }  # fmt: skip
    from diffusers.models import StableCascadeUNet

    return {
        which: StableCascadeUNet(**sizes),
        "scheduler": diffusers.DDPMWuerstchenScheduler(),
    }


def image_unclip() -> dict[str, Any]:
    from diffusers.pipelines.stable_diffusion import stable_unclip_image_normalizer as normalizer

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8, projection_dim=WIDTH,
    )  # fmt: skip
    return {
        "image_encoder": CLIPVisionModelWithProjection(config),
        "image_normalizer": normalizer.StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        **unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
    }
