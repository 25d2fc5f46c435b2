"""Inversion: a picture drawn anew by sound from the noise that it comes from.

As SonicDiffusion edits (arXiv 2405.00878): the picture is followed backwards to its noise under a
source prompt (`ddim`), and drawn again from there with the sound, while features of the source keep
the layout (`injection`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from align.prompts import Prompts
from diffuse.beginning import Beginning, read_picture, resized
from diffuse.ddim import Path, invert, retraced, schedulers


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
    picture = read_picture(image.picture)
    source = wording.of(image.source)
    return Reversal(image, picture, pipeline, source, options["num_inference_steps"])
