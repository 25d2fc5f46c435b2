"""Image editing by DDIM inversion, as in SonicDiffusion (arXiv 2405.00878).

The image is inverted to noise under a source prompt, then denoised again with audio. Injected
features of the source preserve the layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from align.prompts.embeds import PromptEmbeds
from diffuse.data.images import open_image
from diffuse.models.attention_processor import CROSS_ATTENTION_KWARG
from diffuse.pipelines.image_inputs import InitImage, resize_image


@dataclass
class DDIMTrajectory:
    """Latents of a DDIM inversion.

    Attributes:
        latents: Latents (1, C, h, w) by timestep, in the order of increasing noise.
        unet_kwargs: Other arguments of the UNet during the inversion.
    """

    latents: dict[int, torch.Tensor] = field(default_factory=dict)
    unet_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def noise(self) -> torch.Tensor:
        """The latents with the most noise."""
        return self.latents[max(self.latents)]


@dataclass(frozen=True)
class Inversion:
    """An image to edit by inversion; pass it to `SoundPipeline` as `image`.

    Attributes:
        image: Image or path.
        source_prompt: Prompt that describes the image; "" inverts it without a prompt.
        injection_ratio: Fraction of the denoising steps, from the first one, with injected
            self-attention features.
        strength: Fraction of the noise schedule to invert, above 0 and up to 1.

    Raises:
        ValueError: If `injection_ratio` or `strength` is out of range.
    """

    image: Any
    source_prompt: str = ""
    injection_ratio: float = 0.4
    strength: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.injection_ratio <= 1:
            raise ValueError(f"injection_ratio must be from 0 to 1, not {self.injection_ratio}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, not {self.strength}")

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the edit."""
        metadata = InitImage.metadata(self.image, self.strength)
        return metadata | {
            "source_prompt": self.source_prompt,
            "injection_ratio": self.injection_ratio,
            "scheduler": "DDIMScheduler",
        }


def image_metadata(image: Any, strength: float) -> dict[str, Any]:
    """Return the metadata of the image input of a generation.

    Args:
        image: Image or path, `Inversion`, or None.
        strength: Strength of the generation.
    """
    return image.metadata() if isinstance(image, Inversion) else InitImage.metadata(image, strength)


@dataclass
class DDIMInversion:
    """An `Inversion` with the pipeline that runs it; has the methods of an `InitImage`.

    Attributes:
        inversion: The edit.
        image: Its image, RGB.
        pipeline: Text-to-image pipeline of both directions.
        source_embeds: Prompt embeds (1, L, D) of the source prompt.
        num_inference_steps: Number of steps of the whole schedule.
    """

    inversion: Inversion
    image: Image.Image
    pipeline: Any
    source_embeds: PromptEmbeds
    num_inference_steps: int
    _trajectory: DDIMTrajectory = field(default_factory=DDIMTrajectory)

    def num_denoising_steps(self, num_inference_steps: int) -> int:
        """Return the number of denoising steps that `strength` leaves.

        Args:
            num_inference_steps: Number of steps of the whole schedule.
        """
        _, scheduler = ddim_schedulers(self.pipeline.scheduler, self.inversion.strength)
        scheduler.set_timesteps(num_inference_steps)
        return len(scheduler.timesteps)

    def pipeline_kwargs(self, height: int | None, width: int | None) -> dict[str, Any]:
        """Invert the image and return its noise as arguments of the pipeline call.

        Args:
            height: Image height in pixels, or None.
            width: Image width in pixels, or None.
        """
        image = resize_image(self.image, self.pipeline, height, width)
        self._trajectory = ddim_invert(
            self.pipeline,
            image,
            self.source_embeds,
            self.num_inference_steps,
            self.inversion.strength,
        )
        return {"latents": self._trajectory.noise, "height": image.height, "width": image.width}

    def generation_context(self) -> AbstractContextManager[Any]:
        """Return the context manager of the generation; call `pipeline_kwargs` first."""
        return reverse_trajectory(
            self.pipeline, self._trajectory, self.inversion.strength, self.inversion.injection_ratio
        )


def prepare_init_image(
    image: Any, strength: float, pipeline: Any, text_conditioner: Any, options: Mapping[str, Any]
) -> InitImage | DDIMInversion | None:
    """Prepare the image input of a generation.

    Args:
        image: Image or path, `Inversion`, or None to start from noise.
        strength: Strength for an image or path.
        pipeline: Text-to-image pipeline.
        text_conditioner: `TextConditioner` that encodes the source prompt.
        options: Arguments of the generation.

    Raises:
        ValueError: If the image cannot be read, or an option does not fit.
    """
    if not isinstance(image, Inversion):
        return None if image is None else InitImage.from_image(image, strength, pipeline)
    if options["num_images"] > 1:
        raise ValueError(
            "an inversion is deterministic: num_images must be 1, and the seed has no effect"
        )
    opened = open_image(image.image)
    source_embeds = text_conditioner.encode(image.source_prompt)
    return DDIMInversion(image, opened, pipeline, source_embeds, options["num_inference_steps"])


MIN_ALPHA_CUMPROD = 1e-6  # timesteps below it are pure noise


def ddim_schedulers(scheduler: Any, strength: float) -> tuple[Any, Any]:
    """Return the schedulers of the inversion and of the denoising.

    Timesteps of pure noise are left out, because they cannot be inverted: the last one of a
    schedule with zero terminal SNR.

    Args:
        scheduler: Scheduler of the base model, whose noise schedule is used.
        strength: Fraction of the noise schedule.
    """
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    spacing = scheduler.config.get("timestep_spacing", "leading")
    changes = {
        "clip_sample": False,
        "timestep_spacing": spacing if spacing == "trailing" else "leading",
    }

    inverse = DDIMInverseScheduler.from_config(scheduler.config, **changes)
    denoising = DDIMScheduler.from_config(scheduler.config, **changes)
    return _truncate_timesteps(inverse, strength), _truncate_timesteps(denoising, strength)


def _truncate_timesteps(scheduler: Any, strength: float) -> Any:
    """Restrict a scheduler to a fraction of its timesteps, at least one."""
    set_all_timesteps = scheduler.set_timesteps

    def set_timesteps(num_inference_steps: int, device: Any = None) -> None:
        set_all_timesteps(num_inference_steps, device)
        ascending = bool(scheduler.timesteps[0] <= scheduler.timesteps[-1])
        timesteps = scheduler.timesteps.sort().values
        signal = scheduler.alphas_cumprod[timesteps.cpu()] > MIN_ALPHA_CUMPROD
        timesteps = timesteps[signal.to(timesteps.device)][
            : max(1, round(num_inference_steps * strength))
        ]
        scheduler.timesteps = timesteps if ascending else timesteps.flip(0)

    scheduler.set_timesteps = set_timesteps
    return scheduler


@torch.no_grad()
def ddim_invert(
    pipeline: Any, image: Image.Image, source: PromptEmbeds, steps: int, strength: float
) -> DDIMTrajectory:
    """Invert an image to noise, without audio and without guidance.

    Args:
        pipeline: Text-to-image pipeline.
        image: Image whose sides the autoencoder accepts.
        source: Prompt embeds (1, L, D) of the source prompt.
        steps: Number of steps of the whole schedule.
        strength: Fraction of the noise schedule.
    """
    trajectory, (inverse, _) = DDIMTrajectory(), ddim_schedulers(pipeline.scheduler, strength)

    def store_latents(_: Any, step: int, time: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        trajectory.latents[int(time)] = kwargs["latents"]
        return kwargs

    def capture_kwargs(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        names = ("encoder_hidden_states", "added_cond_kwargs", "timestep_cond")
        trajectory.unet_kwargs.update({name: kwargs[name] for name in names if name in kwargs})

    hook = pipeline.unet.register_forward_pre_hook(capture_kwargs, with_kwargs=True)
    to = {"device": pipeline.device, "dtype": pipeline.unet.dtype}
    try:
        with use_scheduler(pipeline, inverse):
            pipeline(
                **{k: v.to(**to) for k, v in source.pipeline_kwargs(source).items()},
                latents=encode_image(pipeline, image),
                height=image.height,
                width=image.width,
                num_inference_steps=steps,
                guidance_scale=1.0,
                output_type="latent",
                cross_attention_kwargs={CROSS_ATTENTION_KWARG: {}},  # no audio
                callback_on_step_end=store_latents,
            )
    finally:
        hook.remove()
    return trajectory


@torch.no_grad()
def encode_image(pipeline: Any, image: Image.Image) -> torch.Tensor:
    """Return the latents (1, C, h, w) of an image, scaled for the UNet; deterministic.

    Args:
        pipeline: Diffusers pipeline.
        image: Image to encode.
    """
    vae = pipeline.vae
    pixels = pipeline.image_processor.preprocess(image).to(vae.device)
    upcast = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if upcast:  # SDXL's autoencoder overflows in half precision
        vae.to(torch.float32)
    mode = vae.encode(pixels.to(vae.dtype)).latent_dist.mode()
    if upcast:
        vae.to(torch.float16)
    latents: torch.Tensor = mode.to(pipeline.unet.dtype) * vae.config.scaling_factor
    return latents


@contextmanager
def use_scheduler(pipeline: Any, scheduler: Any) -> Iterator[None]:
    """Replace the scheduler of a pipeline within a context.

    Args:
        pipeline: Diffusers pipeline.
        scheduler: Scheduler to use.
    """
    original, pipeline.scheduler = pipeline.scheduler, scheduler
    try:
        yield
    finally:
        pipeline.scheduler = original


@contextmanager
def reverse_trajectory(
    pipeline: Any, trajectory: DDIMTrajectory, strength: float, injection_ratio: float
) -> Iterator[None]:
    """Denoise from `trajectory.noise` with DDIM and feature injection within a context.

    Args:
        pipeline: Text-to-image pipeline.
        trajectory: Trajectory of the inversion.
        strength: Fraction of the noise schedule.
        injection_ratio: Fraction of the steps with injected features.
    """
    _, denoising = ddim_schedulers(pipeline.scheduler, strength)
    descending = sorted(trajectory.latents, reverse=True)
    injected = descending[: round(injection_ratio * len(descending))]
    with ExitStack() as stack:
        stack.enter_context(use_scheduler(pipeline, denoising))
        if injected:
            sources = {time: trajectory.latents[time] for time in injected}
            stack.enter_context(FeatureInjection(pipeline.unet, sources, trajectory.unet_kwargs))
        yield


UP_BLOCKS = "up_blocks."


def injection_layers(unet: Any) -> dict[str, Any]:
    """Return the layers whose outputs are injected, by name.

    Args:
        unet: UNet of the pipeline.

    Raises:
        ValueError: If the up blocks of the UNet have no self-attention.
    """
    found = {
        f"{name}.{part}": getattr(attention, part)
        for name, attention in unet.named_modules()
        if name.startswith(UP_BLOCKS) and name.endswith(".attn1")
        for part in ("to_q", "to_k")
    }
    if not found:
        raise ValueError(
            f"{type(unet).__name__} has no self-attention to inject: use --method img2img"
        )
    block = 1 if len(unet.up_blocks) > 1 else 0
    # The last convolution of a residual block, as in plug-and-play diffusion.
    resnets = unet.up_blocks[block].resnets
    index = min(1, len(resnets) - 1)
    return found | {f"{UP_BLOCKS}{block}.resnets.{index}.conv2": resnets[index].conv2}


class FeatureInjection:
    """Injects features of a source image into the calls of a UNet at some timesteps.

    Args:
        unet: UNet of the generation.
        source_latents: Latents (1, C, h, w) of the source by the timesteps of the injection.
        unet_kwargs: Other arguments of the UNet for the source.
    """

    def __init__(
        self, unet: Any, source_latents: Mapping[int, torch.Tensor], unet_kwargs: Mapping[str, Any]
    ) -> None:
        self._unet, self._source_latents, self._unet_kwargs = unet, source_latents, unet_kwargs
        self._features: dict[str, torch.Tensor] = {}
        self._capturing = False
        self._hooks: list[Any] = []

    def __enter__(self) -> FeatureInjection:
        self._hooks = [self._unet.register_forward_pre_hook(self._pre_forward, with_kwargs=True)]
        for name, layer in injection_layers(self._unet).items():
            self._hooks.append(layer.register_forward_hook(self._make_hook(name)))
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _pre_forward(self, unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Compute the features of the source at this timestep."""
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        self._features = {}
        source = self._source_latents.get(
            int(timestep.flatten()[0] if torch.is_tensor(timestep) else timestep)
        )
        if source is None:
            return
        self._capturing = True
        try:
            # `forward` skips the hooks of the UNet, so the source is not conditioned on audio.
            unet.forward(source, timestep, **self._unet_kwargs)
        finally:
            self._capturing = False

    def _make_hook(self, name: str) -> Any:
        def hook(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor | None:
            if self._capturing:
                self._features[name] = output
                return None
            feature = self._features.get(name)
            return None if feature is None else feature.expand(len(output), *feature.shape[1:])

        return hook
