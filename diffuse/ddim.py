"""The way from a picture to its noise and back, by diffusers' DDIM schedulers.

Both ways (Song et al. 2020, arXiv 2010.02502) are calls of the stock pipeline with a scheduler in
the place of its own, so that all that a base's UNet is told besides, it is told as always.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from align.prompts import Prompts
from diffuse.attention import CHANNEL
from diffuse.injection import Injection

LEAST_SIGNAL = 1e-6  # of a timestep that anything of the picture is left in


@dataclass
class Path:
    """A picture's way to its noise.

    Attributes:
        latents: (1, C, h, w) by timestep, in the order of rising noise.
        called: what else the UNet was called with on the way.
    """

    latents: dict[int, torch.Tensor] = field(default_factory=dict)
    called: dict[str, Any] = field(default_factory=dict)

    @property
    def noise(self) -> torch.Tensor:
        """Its end."""
        return self.latents[max(self.latents)]


def schedulers(own: Any, strength: float) -> tuple[Any, Any]:
    """Diffusers' schedulers of the way to noise and back, on the noise of a base's own.

    Args:
        own: the base's scheduler.
        strength: the share of the way that is gone. What is noise alone is left out: of a base
            with zero terminal signal-to-noise its last step, from which there is no way back.
    """
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    spacing = own.config.get("timestep_spacing", "leading")
    changes = {
        "clip_sample": False,
        "timestep_spacing": spacing if spacing == "trailing" else "leading",
    }

    there = DDIMInverseScheduler.from_config(own.config, **changes)
    back = DDIMScheduler.from_config(own.config, **changes)
    return _shortened(there, strength), _shortened(back, strength)


def _shortened(scheduler: Any, strength: float) -> Any:
    """A scheduler whose timesteps are those of a share of the way, at least one."""
    whole = scheduler.set_timesteps

    def set_timesteps(num_inference_steps: int, device: Any = None) -> None:
        whole(num_inference_steps, device)
        rising = bool(scheduler.timesteps[0] <= scheduler.timesteps[-1])
        way = scheduler.timesteps.sort().values
        signal = scheduler.alphas_cumprod[way.cpu()] > LEAST_SIGNAL
        way = way[signal.to(way.device)][: max(1, round(num_inference_steps * strength))]
        scheduler.timesteps = way if rising else way.flip(0)

    scheduler.set_timesteps = set_timesteps
    return scheduler


@torch.no_grad()
def invert(
    pipeline: Any, picture: Image.Image, source: Prompts, steps: int, strength: float
) -> Path:
    """Follows a picture to its noise, hearing nothing and guided by nothing.

    Args:
        pipeline: a stock text-to-image pipeline.
        picture: of sides that its autoencoder takes.
        source: the embeds (1, L, D) of what it shows.
        steps: of the whole way.
        strength: the share of it that is gone.
    """
    path, (there, _) = Path(), schedulers(pipeline.scheduler, strength)

    def keep(_: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
        path.latents[int(time)] = given["latents"]
        return given

    def overhear(_: Any, __: Any, called: dict[str, Any]) -> None:
        names = ("encoder_hidden_states", "added_cond_kwargs", "timestep_cond")
        path.called.update({name: called[name] for name in names if name in called})

    hook = pipeline.unet.register_forward_pre_hook(overhear, with_kwargs=True)
    where = {"device": pipeline.device, "dtype": pipeline.unet.dtype}
    try:
        with exchanged(pipeline, there):
            pipeline(
                **{k: v.to(**where) for k, v in source.arguments(source).items()},
                latents=encoded(pipeline, picture),
                height=picture.height,
                width=picture.width,
                num_inference_steps=steps,
                guidance_scale=1.0,
                output_type="latent",
                cross_attention_kwargs={CHANNEL: {}},  # silence, whatever plays
                callback_on_step_end=keep,
            )
    finally:
        hook.remove()
    return path


@torch.no_grad()
def encoded(pipeline: Any, picture: Image.Image) -> torch.Tensor:
    """The latents (1, C, h, w) of a picture as the UNet takes them; the same every time."""
    vae = pipeline.vae
    pixels = pipeline.image_processor.preprocess(picture).to(vae.device)
    upcast = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if upcast:  # SDXL's autoencoder overflows in half precision
        vae.to(torch.float32)
    found = vae.encode(pixels.to(vae.dtype)).latent_dist.mode()
    if upcast:
        vae.to(torch.float16)
    latents: torch.Tensor = found.to(pipeline.unet.dtype) * vae.config.scaling_factor
    return latents


@contextmanager
def exchanged(pipeline: Any, scheduler: Any) -> Iterator[None]:
    """The pipeline with another scheduler in the place of its own for a while."""
    own, pipeline.scheduler = pipeline.scheduler, scheduler
    try:
        yield
    finally:
        pipeline.scheduler = own


@contextmanager
def retraced(pipeline: Any, path: Path, strength: float, inject: float) -> Iterator[None]:
    """The way back: calls from `path.noise` are DDIM's, and keep the layout at first."""
    _, back = schedulers(pipeline.scheduler, strength)
    falling = sorted(path.latents, reverse=True)
    kept = falling[: round(inject * len(falling))]
    with ExitStack() as stack:
        stack.enter_context(exchanged(pipeline, back))
        if kept:
            sources = {time: path.latents[time] for time in kept}
            stack.enter_context(Injection(pipeline.unet, sources, path.called))
        yield
