"""Training of the `mini` autoencoder: 64x64 images to four standardized channels at 16x16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from soundprompt.mini.build.samples import render_batch, rng_of, to_tensor
from soundprompt.mini.build.training_loop import TrainingPlan, device, fit

PLAN = TrainingPlan(steps=1800, learning_rate=2e-3, ema_decay=0.99)
BATCH = 16


def new_vae() -> AutoencoderKL:
    """Create an untrained autoencoder."""
    channels = (24, 48, 96)
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
    )


def _loss(vae: Any, step: int) -> torch.Tensor:
    images = to_tensor(render_batch(rng_of("vae", step), BATCH)[1]).to(device())
    posterior = vae.encode(images).latent_dist
    back = vae.decode(posterior.sample()).sample
    # L1 preserves edges, MSE colors; the KL term prevents a drift of the latents' scale.
    pixels = F.l1_loss(back, images) + 2 * F.mse_loss(back, images)
    return pixels + 1e-6 * posterior.kl().mean()


@torch.no_grad()
def standardize(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold a per-channel standardization of the latents into the two 1x1 convolutions.

    Pipelines have one scaling factor for all channels; standardized latents need none.

    Args:
        vae: Autoencoder, changed in place; its reconstructions stay the same.
        images: Images (B, 3, H, W) in [-1, 1] for mean and standard deviation.
    """
    latents = vae.encode(images).latent_dist.mode()
    mean = latents.mean((0, 2, 3))
    spread = latents.std((0, 2, 3))
    n = len(mean)
    vae.quant_conv.bias[:n] -= mean
    vae.quant_conv.weight[:n] /= spread[:, None, None, None]
    vae.quant_conv.bias[:n] /= spread
    vae.quant_conv.bias[n:] -= 2 * spread.log()
    decode = vae.post_quant_conv
    decode.bias += (decode.weight[:, :, 0, 0] * mean).sum(1)
    decode.weight *= spread[None, :, None, None]


def build(folder: Path, weights: Path) -> None:
    """Train the autoencoder and save it as the `vae` of the pipeline.

    Args:
        folder: Directory of the checkpoints.
        weights: Output directory of the trained models.
    """
    torch.manual_seed(0)
    vae = fit("vae", new_vae(), _loss, PLAN, folder)
    standardize(vae, to_tensor(render_batch(rng_of("vae", 10**9), 256)[1]).to(device()))
    vae.half().save_pretrained(weights / "stable-diffusion" / "vae")
