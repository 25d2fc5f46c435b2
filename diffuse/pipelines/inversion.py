"""Inversion: a picture drawn anew by sound from the noise that it comes from.

As SonicDiffusion edits (arXiv 2405.00878): the picture is followed backwards to its noise under a
source prompt (`ddim`), and drawn again from there with the sound, while features of the source keep
the layout (`injection`).
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
    """A picture's way to its noise.

    Attributes:
        latents: (1, C, h, w) by timestep, in the order of rising noise.
        called: what else the UNet was called with on the way.
    """

    latents: dict[int, torch.Tensor] = field(default_factory=dict)
    unet_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def noise(self) -> torch.Tensor:
        """Its end."""
        return self.latents[max(self.latents)]


@dataclass(frozen=True)
class Inversion:
    """A picture to be drawn anew from its own noise: what `SoundPipeline` takes as its image.

    Attributes:
        picture: or its path.
        source: a text that says what it shows; "" leaves that to the picture.
        inject: share of the steps, from the noisy end, in which the source's layout is kept.
        strength: how far to the noise the picture is followed, above 0 and up to 1.
    """

    image: Any
    source_prompt: str = ""
    injection_ratio: float = 0.4
    strength: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.injection_ratio <= 1:
            raise ValueError(f"inject is a share of the steps, 0 to 1, not {self.injection_ratio}")
        if not 0 < self.strength <= 1:
            raise ValueError(
                f"strength lies above 0 (the picture) and up to 1, not {self.strength}"
            )

    def metadata(self) -> dict[str, Any]:
        """As settings tell it."""
        named = InitImage.metadata(self.image, self.strength)
        own = {
            "source_prompt": self.source_prompt,
            "injection_ratio": self.injection_ratio,
            "scheduler": "DDIMScheduler",
        }
        return named | own


def image_metadata(image: Any, strength: float) -> dict[str, Any]:
    """What a drawing begins from, as settings tell it."""
    return image.metadata() if isinstance(image, Inversion) else InitImage.metadata(image, strength)


@dataclass
class DDIMInversion:
    """An inversion on a pipeline: what a drawing begins from, as a `InitImage` is.

    Attributes:
        wanted: what is drawn anew.
        picture: its picture, RGB.
        pipeline: the text-to-image pipeline that goes both ways.
        source: the embeds (1, L, D) of its source text.
        asked: steps of the whole way.
    """

    inversion: Inversion
    image: Image.Image
    pipeline: Any
    source_embeds: PromptEmbeds
    num_inference_steps: int
    _trajectory: DDIMTrajectory = field(default_factory=DDIMTrajectory)

    def num_denoising_steps(self, num_inference_steps: int) -> int:
        """The denoising steps of the way back."""
        _, scheduler = ddim_schedulers(self.pipeline.scheduler, self.inversion.strength)
        scheduler.set_timesteps(num_inference_steps)
        return len(scheduler.timesteps)

    def pipeline_kwargs(self, height: int | None, width: int | None) -> dict[str, Any]:
        """What the pipeline takes: the noise that the picture comes from."""
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
        """What the drawing happens within; after `pipeline_kwargs`."""
        return reverse_trajectory(
            self.pipeline, self._trajectory, self.inversion.strength, self.inversion.injection_ratio
        )


def prepare_init_image(
    image: Any, strength: float, pipeline: Any, text_conditioner: Any, options: Mapping[str, Any]
) -> InitImage | DDIMInversion | None:
    """What a drawing begins from: a picture, an inversion, or nothing for None.

    Args:
        image: a picture or its path, or an `Inversion`.
        strength: of the former.
        pipeline: a stock text-to-image pipeline.
        wording: a `TextConditioner`, which encodes the source text.
        options: those of the drawing.

    Raises:
        ValueError: the picture cannot be read, or an option does not fit.
    """
    if not isinstance(image, Inversion):
        return None if image is None else InitImage.from_image(image, strength, pipeline)
    if options["num_images"] > 1:
        raise ValueError("an inversion has one way back: num_images is 1, seeds change nothing")
    opened = open_image(image.image)
    source_embeds = text_conditioner.encode(image.source_prompt)
    return DDIMInversion(image, opened, pipeline, source_embeds, options["num_inference_steps"])


MIN_ALPHA_CUMPROD = 1e-6  # of a timestep that anything of the picture is left in


def ddim_schedulers(scheduler: Any, strength: float) -> tuple[Any, Any]:
    """Diffusers' schedulers of the way to noise and back, on the noise of a base's own.

    Args:
        own: the base's scheduler.
        strength: the share of the way that is gone. What is noise alone is left out: of a base
            with zero terminal signal-to-noise its last step, from which there is no way back.
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
    """A scheduler whose timesteps are those of a share of the way, at least one."""
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
    """Follows a picture to its noise, hearing nothing and guided by nothing.

    Args:
        pipeline: a stock text-to-image pipeline.
        picture: of sides that its autoencoder takes.
        source: the embeds (1, L, D) of what it shows.
        steps: of the whole way.
        strength: the share of it that is gone.
    """
    trajectory, (inverse, _) = DDIMTrajectory(), ddim_schedulers(pipeline.scheduler, strength)

    def store_latents(_: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
        trajectory.latents[int(time)] = given["latents"]
        return given

    def capture_kwargs(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        names = ("encoder_hidden_states", "added_cond_kwargs", "timestep_cond")
        trajectory.unet_kwargs.update({name: kwargs[name] for name in names if name in kwargs})

    hook = pipeline.unet.register_forward_pre_hook(capture_kwargs, with_kwargs=True)
    where = {"device": pipeline.device, "dtype": pipeline.unet.dtype}
    try:
        with use_scheduler(pipeline, inverse):
            pipeline(
                **{k: v.to(**where) for k, v in source.pipeline_kwargs(source).items()},
                latents=encode_image(pipeline, image),
                height=image.height,
                width=image.width,
                num_inference_steps=steps,
                guidance_scale=1.0,
                output_type="latent",
                cross_attention_kwargs={CROSS_ATTENTION_KWARG: {}},  # silence, whatever plays
                callback_on_step_end=store_latents,
            )
    finally:
        hook.remove()
    return trajectory


@torch.no_grad()
def encode_image(pipeline: Any, image: Image.Image) -> torch.Tensor:
    """The latents (1, C, h, w) of a picture as the UNet takes them; the same every time."""
    vae = pipeline.vae
    pixels = pipeline.image_processor.preprocess(image).to(vae.device)
    upcast = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if upcast:  # SDXL's autoencoder overflows in half precision
        vae.to(torch.float32)
    found = vae.encode(pixels.to(vae.dtype)).latent_dist.mode()
    if upcast:
        vae.to(torch.float16)
    latents: torch.Tensor = found.to(pipeline.unet.dtype) * vae.config.scaling_factor
    return latents


@contextmanager
def use_scheduler(pipeline: Any, scheduler: Any) -> Iterator[None]:
    """The pipeline with another scheduler in the place of its own for a while."""
    original, pipeline.scheduler = pipeline.scheduler, scheduler
    try:
        yield
    finally:
        pipeline.scheduler = original


@contextmanager
def reverse_trajectory(
    pipeline: Any, trajectory: DDIMTrajectory, strength: float, injection_ratio: float
) -> Iterator[None]:
    """The way back: calls from `trajectory.noise` are DDIM's, and keep the layout at first."""
    _, back = ddim_schedulers(pipeline.scheduler, strength)
    descending = sorted(trajectory.latents, reverse=True)
    injected = descending[: round(injection_ratio * len(descending))]
    with ExitStack() as stack:
        stack.enter_context(use_scheduler(pipeline, back))
        if injected:
            sources = {time: trajectory.latents[time] for time in injected}
            stack.enter_context(FeatureInjection(pipeline.unet, sources, trajectory.unet_kwargs))
        yield


UP_BLOCKS = "up_blocks."


def injection_layers(unet: Any) -> dict[str, Any]:
    """The layers whose outputs are the layout, by name.

    Raises:
        ValueError: the UNet's up blocks have no self-attention.
    """
    found = {
        f"{name}.{part}": getattr(attention, part)
        for name, attention in unet.named_modules()
        if name.startswith(UP_BLOCKS) and name.endswith(".attn1")
        for part in ("to_q", "to_k")
    }
    if not found:
        raise ValueError(f"{type(unet).__name__} has no self-attention whose layout could be kept")
    block = 1 if len(unet.up_blocks) > 1 else 0
    # The last convolution of a residual: what it adds to its input.
    resnets = unet.up_blocks[block].resnets
    place = min(1, len(resnets) - 1)
    return found | {f"{UP_BLOCKS}{block}.resnets.{place}.conv2": resnets[place].conv2}


class FeatureInjection:
    """While it is entered, a UNet's calls at some timesteps keep a source's layout.

    Args:
        unet: the one that draws.
        sources: the source's latents (1, C, h, w) by the timesteps at which it is kept.
        called: what else the UNet is called with for the source.
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
        """Hears the source's features at this timestep."""
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        self._features = {}
        source = self._source_latents.get(
            int(timestep.flatten()[0] if torch.is_tensor(timestep) else timestep)
        )
        if source is None:
            return
        self._capturing = True
        try:
            # Past the hooks on the whole UNet, by which a playing sound would come in.
            unet.forward(source, timestep, **self._unet_kwargs)
        finally:
            self._capturing = False

    def _make_hook(self, name: str) -> Any:
        def hook(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor | None:
            if self._capturing:
                self._features[name] = output
                return None
            kept = self._features.get(name)
            return None if kept is None else kept.expand(len(output), *kept.shape[1:])

        return hook
