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

from align.prompts.embeds import Prompts
from diffuse.data.images import open_image
from diffuse.models.attention_processor import CHANNEL
from diffuse.pipelines.image_inputs import Beginning, resized


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


@dataclass(frozen=True)
class Inversion:
    """A picture to be drawn anew from its own noise: what `SoundPipeline` takes as its image.

    Attributes:
        picture: or its path.
        source: a text that says what it shows; "" leaves that to the picture.
        inject: share of the steps, from the noisy end, in which the source's layout is kept.
        strength: how far to the noise the picture is followed, above 0 and up to 1.
    """

    picture: Any
    source: str = ""
    inject: float = 0.4
    strength: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.inject <= 1:
            raise ValueError(f"inject is a share of the steps, 0 to 1, not {self.inject}")
        if not 0 < self.strength <= 1:
            raise ValueError(
                f"strength lies above 0 (the picture) and up to 1, not {self.strength}"
            )

    def told(self) -> dict[str, Any]:
        """As settings tell it."""
        named = Beginning.told(self.picture, self.strength)
        own = {"source": self.source, "inject": self.inject, "scheduler": "DDIMScheduler"}
        return named | own


def told_image(image: Any, strength: float) -> dict[str, Any]:
    """What a drawing begins from, as settings tell it."""
    return image.told() if isinstance(image, Inversion) else Beginning.told(image, strength)


@dataclass
class Reversal:
    """An inversion on a pipeline: what a drawing begins from, as a `Beginning` is.

    Attributes:
        wanted: what is drawn anew.
        picture: its picture, RGB.
        pipeline: the text-to-image pipeline that goes both ways.
        source: the embeds (1, L, D) of its source text.
        asked: steps of the whole way.
    """

    wanted: Inversion
    picture: Image.Image
    pipeline: Any
    source: Prompts
    asked: int
    _path: Path = field(default_factory=Path)

    def steps(self, asked: int) -> int:
        """The denoising steps of the way back."""
        _, back = schedulers(self.pipeline.scheduler, self.wanted.strength)
        back.set_timesteps(asked)
        return len(back.timesteps)

    def arguments(self, height: int | None, width: int | None) -> dict[str, Any]:
        """What the pipeline takes: the noise that the picture comes from."""
        picture = resized(self.picture, self.pipeline, height, width)
        self._path = invert(self.pipeline, picture, self.source, self.asked, self.wanted.strength)
        return {"latents": self._path.noise, "height": picture.height, "width": picture.width}

    def drawing(self) -> AbstractContextManager[Any]:
        """What the drawing happens within; after `arguments`."""
        return retraced(self.pipeline, self._path, self.wanted.strength, self.wanted.inject)


def beginning_of(
    image: Any, strength: float, pipeline: Any, wording: Any, options: Mapping[str, Any]
) -> Beginning | Reversal | None:
    """What a drawing begins from: a picture, an inversion, or nothing for None.

    Args:
        image: a picture or its path, or an `Inversion`.
        strength: of the former.
        pipeline: a stock text-to-image pipeline.
        wording: a `Wording`, which encodes the source text.
        options: those of the drawing.

    Raises:
        ValueError: the picture cannot be read, or an option does not fit.
    """
    if not isinstance(image, Inversion):
        return None if image is None else Beginning.of(image, strength, pipeline)
    if options["num_images"] > 1:
        raise ValueError("an inversion has one way back: num_images is 1, seeds change nothing")
    picture = open_image(image.picture)
    source = wording.of(image.source)
    return Reversal(image, picture, pipeline, source, options["num_inference_steps"])


LEAST_SIGNAL = 1e-6  # of a timestep that anything of the picture is left in


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


UP = "up_blocks."


def layout_layers(unet: Any) -> dict[str, Any]:
    """The layers whose outputs are the layout, by name.

    Raises:
        ValueError: the UNet's up blocks have no self-attention.
    """
    found = {
        f"{name}.{part}": getattr(attention, part)
        for name, attention in unet.named_modules()
        if name.startswith(UP) and name.endswith(".attn1")
        for part in ("to_q", "to_k")
    }
    if not found:
        raise ValueError(f"{type(unet).__name__} has no self-attention whose layout could be kept")
    block = 1 if len(unet.up_blocks) > 1 else 0
    # The last convolution of a residual: what it adds to its input.
    resnets = unet.up_blocks[block].resnets
    place = min(1, len(resnets) - 1)
    return found | {f"{UP}{block}.resnets.{place}.conv2": resnets[place].conv2}


class Injection:
    """While it is entered, a UNet's calls at some timesteps keep a source's layout.

    Args:
        unet: the one that draws.
        sources: the source's latents (1, C, h, w) by the timesteps at which it is kept.
        called: what else the UNet is called with for the source.
    """

    def __init__(
        self, unet: Any, sources: Mapping[int, torch.Tensor], called: Mapping[str, Any]
    ) -> None:
        self._unet, self._sources, self._called = unet, sources, called
        self._features: dict[str, torch.Tensor] = {}
        self._listening = False
        self._hooks: list[Any] = []

    def __enter__(self) -> Injection:
        self._hooks = [self._unet.register_forward_pre_hook(self._before, with_kwargs=True)]
        for name, layer in layout_layers(self._unet).items():
            self._hooks.append(layer.register_forward_hook(self._exchange(name)))
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _before(self, unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hears the source's features at this timestep."""
        time = args[1] if len(args) > 1 else kwargs["timestep"]
        self._features = {}
        source = self._sources.get(int(time.flatten()[0] if torch.is_tensor(time) else time))
        if source is None:
            return
        self._listening = True
        try:
            # Past the hooks on the whole UNet, by which a playing sound would come in.
            unet.forward(source, time, **self._called)
        finally:
            self._listening = False

    def _exchange(self, name: str) -> Any:
        def hook(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor | None:
            if self._listening:
                self._features[name] = output
                return None
            kept = self._features.get(name)
            return None if kept is None else kept.expand(len(output), *kept.shape[1:])

        return hook
