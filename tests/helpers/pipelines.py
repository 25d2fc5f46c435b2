"""Tiny checkpoints of every kind of base model in the Hub layout, and encoders for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    MotionAdapter,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from align.models.encoder import AudioPromptEncoder
from align.prompts.embeds import EmbedStatistics, PromptEmbeds
from align.prompts.space import PromptSpace
from soundprompt.mini.build.clip import new_tokenizer
from tests.conftest import WIDTH

CAPTIONS = ["a dog in the rain", "a bell", "waves on a beach at night", "a crow"]
WIDE = 48  # SD2's embeds, larger than SD1's 32
SDXL_WIDTH, SDXL_POOLED = 16 + 24, 12
SD3_WIDTH, SD3_JOINT, SD3_POOLED = 16 + 24, 64, 16 + 12
TEXT = {
    "vocab_size": 699, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "bos_token_id": 697, "eos_token_id": 698, "pad_token_id": 698,
}  # fmt: skip
BLOCKS: dict[str, Any] = {
    "layers_per_block": 1, "block_out_channels": (16, 32), "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 2,
}  # fmt: skip
XL = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + SDXL_POOLED,
}  # fmt: skip


def unet(width: int, **more: Any) -> UNet2DConditionModel:
    """Return a UNet with a cross-attention dimension of `width`."""
    ups = ("CrossAttnUpBlock2D", "UpBlock2D")
    return UNet2DConditionModel(
        sample_size=8, up_block_types=ups, cross_attention_dim=width, **BLOCKS, **more
    )


def vae(channels: int = 4) -> AutoencoderKL:
    """Return an autoencoder with a number of latent channels."""
    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, norm_num_groups=8,
        use_quant_conv=channels == 4, use_post_quant_conv=channels == 4, shift_factor=0.05,
    )  # fmt: skip


def save_stable_diffusion(folder: Path, width: int = WIDTH, **more: Any) -> str:
    """Save Stable Diffusion 1 or 2 (by the width of their embeds), or an inpainting model."""
    torch.manual_seed(width)
    text = CLIPTextModel(CLIPTextConfig(hidden_size=width, **TEXT))
    StableDiffusionPipeline(
        vae=vae(), text_encoder=text, tokenizer=new_tokenizer(), unet=unet(width, **more),
        scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def _two_encoders(projections: tuple[int | None, int]) -> dict[str, Any]:
    first, second = projections
    first_class = CLIPTextModel if first is None else CLIPTextModelWithProjection
    sizes = {} if first is None else {"projection_dim": first}
    tokenizer = new_tokenizer()
    return {
        "text_encoder": first_class(CLIPTextConfig(hidden_size=16, **sizes, **TEXT)),
        "text_encoder_2": CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=24, projection_dim=second, **TEXT)
        ),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
    }


def save_sdxl(folder: Path) -> str:
    """Save SDXL: two text encoders and pooled embeds."""
    torch.manual_seed(2)
    StableDiffusionXLPipeline(
        vae=vae(), unet=unet(SDXL_WIDTH, **XL), scheduler=DDIMScheduler(),
        **_two_encoders((None, SDXL_POOLED)),
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def save_sd3(folder: Path) -> str:
    """Save SD3 with a T5 encoder whose weights are missing, so that loading it would fail."""
    torch.manual_seed(3)
    t5 = T5EncoderModel(T5Config(
        vocab_size=20, d_model=SD3_JOINT, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    ))  # fmt: skip
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=16, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=SD3_JOINT,
        pooled_projection_dim=SD3_POOLED, out_channels=16,
    )  # fmt: skip
    StableDiffusion3Pipeline(
        transformer=transformer, vae=vae(16), scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder_3=t5, tokenizer_3=None, **_two_encoders((16, 12)),
    ).save_pretrained(folder)  # fmt: skip
    (folder / "text_encoder_3" / "model.safetensors").unlink()
    return str(folder)


def save_controlnet(folder: Path, width: int = WIDTH, **more: Any) -> str:
    """Save a ControlNet for a UNet, with nonzero last convolutions."""
    torch.manual_seed(4)
    controlnet = ControlNetModel(
        cross_attention_dim=width, conditioning_embedding_out_channels=(8, 16), **BLOCKS, **more
    )
    with torch.no_grad():
        for weight in controlnet.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    controlnet.save_pretrained(folder)
    return str(folder)


def save_motion_adapter(folder: Path) -> str:
    """Save AnimateDiff's motion modules for these UNet blocks."""
    torch.manual_seed(5)
    MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_norm_num_groups=8,
        motion_mid_block_layers_per_block=1, motion_num_attention_heads=2, motion_max_seq_length=8,
        motion_transformer_layers_per_block=1, motion_transformer_layers_per_mid_block=1,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


class FixedAdapter(nn.Module):
    """An adapter that predicts fixed embeds for any audio."""

    def __init__(self, target: PromptEmbeds) -> None:
        super().__init__()
        self.target = target

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.target.embeds, self.target.pooled


def new_encoder(backbone: str, spaces: dict[str, PromptSpace]) -> AudioPromptEncoder:
    """Return an untrained encoder with a head for each prompt space."""
    torch.manual_seed(0)
    adapter = {"adapter_type": "resampler", "width": 16, "depth": 1, "heads": 2}
    shapes = {name: space.shape for name, space in spaces.items()}
    encoder = AudioPromptEncoder.from_backbone(backbone, adapter, shapes)
    for name, space in spaces.items():
        prompts = space.encode(CAPTIONS)
        found = {"embeds": EmbedStatistics.of(prompts.embeds)}
        if prompts.pooled is not None:
            found["pooled"] = EmbedStatistics.of(prompts.pooled)
        encoder.head(name).set_statistics(found, space.unconditional)
    return encoder.eval()


def set_fixed_prediction(encoder: AudioPromptEncoder, name: str, target: PromptEmbeds) -> None:
    """Make a head predict fixed prompt embeds bit for bit: zero mean and unit variance."""
    head = encoder.head(name)
    head.adapter = FixedAdapter(target)
    for part in ("embeds", "pooled") if target.pooled is not None else ("embeds",):
        head.get_buffer(f"{part}_mean").zero_()
        head.get_buffer(f"{part}_std").fill_(1.0)
        head.get_buffer(f"{part}_constant").zero_()
