"""Training of the `mini` ControlNet, conditioned on outlines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch.nn import functional as F

from soundprompt.mini.build.samples import image_pool, rng_of, to_tensor
from soundprompt.mini.build.training_loop import Loss, TrainingPlan, device, fit
from soundprompt.mini.build.unet import CaptionEncoder, latents_of, new_scheduler
from soundprompt.mini.outlines import outline
from soundprompt.mini.world import View

PLAN = TrainingPlan(steps=1100, learning_rate=1e-3, ema_decay=0.99)
BATCH = 16
NUM_IMAGES = 4000


def new_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Create an untrained ControlNet: a copy of the UNet's down blocks.

    The middle block is new and has no cross-attention, which saves most of the weights; the UNet's
    own middle block still attends to the prompt.

    Args:
        unet: UNet to copy.
    """
    own = unet.config
    controlnet = ControlNetModel(
        in_channels=own.in_channels,
        conditioning_channels=3,
        down_block_types=own.down_block_types,
        mid_block_type="UNetMidBlock2D",
        block_out_channels=own.block_out_channels,
        layers_per_block=own.layers_per_block,
        cross_attention_dim=own.cross_attention_dim,
        attention_head_dim=own.attention_head_dim,
        norm_num_groups=own.norm_num_groups,
        conditioning_embedding_out_channels=(8, 16, 32),
    )
    ours, theirs = controlnet.state_dict(), unet.state_dict()
    shared = {name: theirs[name] for name in ours if name in theirs}
    controlnet.load_state_dict(ours | shared)
    return controlnet


def outlines_of(pixels: torch.Tensor) -> torch.Tensor:
    """Compute outlines.

    Args:
        pixels: Images (N, 3, S, S), uint8.

    Returns:
        Outlines (N, 3, S, S) in [0, 1].
    """
    images = [Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).numpy()]
    return (to_tensor([outline(image) for image in images]) + 1) / 2


def _loss_of(
    views: list[View], pixels: torch.Tensor, latents: torch.Tensor, home: Path, unet: Any
) -> Loss:
    scheduler, captioner = new_scheduler(), CaptionEncoder(home)

    def loss(controlnet: Any, step: int) -> torch.Tensor:
        rng = rng_of("controlnet", step)
        chosen = rng.integers(len(views), size=BATCH)
        embeds = captioner([views[i] for i in chosen], rng)
        rows = torch.from_numpy(chosen)
        lines, clean = outlines_of(pixels[rows]).to(device()), latents[rows].to(device())
        noise = torch.randn(clean.shape).to(device())
        timesteps = torch.randint(0, 1000, (BATCH,)).to(device())
        noisy = scheduler.add_noise(clean, noise, timesteps)
        down, middle = controlnet(noisy, timesteps, embeds, lines, return_dict=False)
        model_pred = unet(
            noisy,
            timesteps,
            embeds,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        return F.mse_loss(model_pred.float(), scheduler.get_velocity(clean, noise, timesteps))

    return loss


def build(folder: Path, weights: Path) -> None:
    """Train the ControlNet with the frozen UNet and save it.

    Args:
        folder: Directory of the image pool and the checkpoints.
        weights: Output directory of the trained models.
    """
    torch.manual_seed(0)
    home = weights / "stable-diffusion"
    vae = AutoencoderKL.from_pretrained(home / "vae", dtype=torch.float32).to(device())
    unet = UNet2DConditionModel.from_pretrained(home / "unet", dtype=torch.float32)
    unet.requires_grad_(False).eval().to(device()).set_attn_processor(AttnProcessor())
    views, pixels = image_pool(folder, NUM_IMAGES)
    latents = latents_of(vae, pixels, folder)
    controlnet = new_controlnet(unet)
    loss = _loss_of(views, pixels, latents, home, unet)
    fit("controlnet", controlnet, loss, PLAN, folder).half().save_pretrained(weights / "controlnet")
