"""Training of the `mini` UNet and assembly of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from soundprompt.mini.build.clip import NUM_IMAGES
from soundprompt.mini.build.samples import image_pool, rng_of
from soundprompt.mini.build.saving import set_float32_dtype
from soundprompt.mini.build.training_loop import Loss, TrainingPlan, device, fit
from soundprompt.mini.captions import caption, scene_caption
from soundprompt.mini.world import View

PLAN = TrainingPlan(steps=5000, learning_rate=1e-3, ema_decay=0.998)
BATCH = 32
CAPTION_DROPOUT = 0.1  # probability of an empty caption, for classifier-free guidance
SCENE_ONLY_PROB = 0.05  # probability of a caption of the time of day only


def new_unet() -> UNet2DConditionModel:
    """Create an untrained UNet with cross-attention at 8x8."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    unet.set_attn_processor(AttnProcessor())  # trains faster on a CPU than fused attention
    return unet


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


@torch.no_grad()
def latents_of(vae: AutoencoderKL, pixels: torch.Tensor, folder: Path) -> torch.Tensor:
    """Encode images into latents once and cache them.

    Args:
        vae: Autoencoder.
        pixels: Images (N, 3, 64, 64), uint8.
        folder: Directory of the cache.

    Returns:
        Latents (N, 4, 16, 16).
    """
    path = folder / f"latents-{len(pixels)}.pt"
    if not path.exists():
        parts = []
        for part in pixels.split(64):
            scaled = part.to(device()).float() / 127.5 - 1
            with torch.autocast(device().type, torch.bfloat16):
                mode = vae.encode(scaled).latent_dist.mode()
            parts.append(mode.float().cpu())
        torch.save(torch.cat(parts), path)
    return torch.load(path, weights_only=True)


class CaptionEncoder:
    """Sample captions of views and encode them into prompt embeds (B, 77, D)."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        model = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        self.model = model.eval().to(device())

    @torch.no_grad()
    def __call__(self, views: list[View], rng: np.random.Generator) -> torch.Tensor:
        texts = []
        for view in views:
            kind = rng.random()
            if kind < CAPTION_DROPOUT:
                texts.append("")
            elif kind < CAPTION_DROPOUT + SCENE_ONLY_PROB:
                texts.append(scene_caption(view.scene, rng))
            else:
                texts.append(caption(view, rng))
        tokens = self.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        return self.model(tokens.to(device())).last_hidden_state


def _loss_of(views: list[View], latents: torch.Tensor, caption_encoder: CaptionEncoder) -> Loss:
    scheduler = new_scheduler()

    def loss(unet: Any, step: int) -> torch.Tensor:
        rng = rng_of("unet", step)
        chosen = rng.integers(len(views), size=BATCH)
        embeds = caption_encoder([views[i] for i in chosen], rng)
        clean = latents[torch.from_numpy(chosen)].to(device())
        noise = torch.randn(clean.shape).to(device())
        timesteps = torch.randint(0, 1000, (BATCH,)).to(device())
        noisy = scheduler.add_noise(clean, noise, timesteps)
        target = scheduler.get_velocity(clean, noise, timesteps)
        return F.mse_loss(unet(noisy, timesteps, embeds).sample.float(), target)

    return loss


def build(folder: Path, weights: Path) -> None:
    """Trains the UNet on the other parts' output and saves the whole pipeline."""
    torch.manual_seed(0)
    home = weights / "stable-diffusion"
    vae = AutoencoderKL.from_pretrained(home / "vae", dtype=torch.float32).to(device())
    views, pixels = image_pool(folder, NUM_IMAGES)
    latents = latents_of(vae, pixels, folder)
    caption_encoder = CaptionEncoder(home)
    unet = fit("unet", new_unet(), _loss_of(views, latents, caption_encoder), PLAN, folder)
    StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=caption_encoder.model.half(),
        tokenizer=caption_encoder.tokenizer,
        unet=unet.half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(home)
    set_float32_dtype(home / "text_encoder")
