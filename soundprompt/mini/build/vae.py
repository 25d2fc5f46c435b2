"""The miniature's AutoencoderKL: 64x64 pictures to four standardised channels at 16x16."""

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
    """The autoencoder before training."""
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
    # L1 keeps edges, MSE colours; the KL term only keeps the latents' scale from drifting.
    pixels = F.l1_loss(back, images) + 2 * F.mse_loss(back, images)
    return pixels + 1e-6 * posterior.kl().mean()


@torch.no_grad()
def standardize(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Folds a per-channel standardisation of the latents into the two 1x1 convolutions.

    A pipeline knows one scaling factor for all channels; this way it needs none.

    Args:
        vae: changed in place; what it reconstructs stays the same.
        pictures: (B, 3, H, W) in [-1, 1], from which mean and spread are taken.
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
    """Trains the autoencoder and saves it as the pipeline's `vae`."""
    torch.manual_seed(0)
    vae = fit("vae", new_vae(), _loss, PLAN, folder)
    standardize(vae, to_tensor(render_batch(rng_of("vae", 10**9), 256)[1]).to(device()))
    vae.half().save_pretrained(weights / "stable-diffusion" / "vae")
