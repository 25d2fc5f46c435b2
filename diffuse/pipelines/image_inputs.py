"""Pictures that a drawing begins from in place of noise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffuse.data.images import open_image


@dataclass(frozen=True)
class Beginning:
    """A picture to begin from.

    Attributes:
        picture: in its own size, RGB.
        strength: how much of it is drawn anew, above 0 and up to 1.
        pipeline: the image-to-image pipeline with the same models.
    """

    picture: Image.Image
    strength: float
    pipeline: Any

    @classmethod
    def of(cls, image: Any, strength: float, pipeline: Any) -> Beginning:
        """From a picture or its path.

        Raises:
            ValueError: it cannot be read, or the strength is out of range.
        """
        from diffusers import AutoPipelineForImage2Image

        if not 0 < strength <= 1:
            raise ValueError(f"strength lies above 0 (the picture) and up to 1, not {strength}")
        made = AutoPipelineForImage2Image.from_pipe(pipeline)
        made.set_progress_bar_config(disable=True)
        return cls(open_image(image), strength, made)

    def steps(self, asked: int) -> int:
        """The denoising steps that are left when the picture stands at the beginning.

        Raises:
            ValueError: none is left.
        """
        left = min(int(asked * self.strength), asked)
        if not left:
            raise ValueError(
                f"{asked} steps at strength {self.strength} draw nothing: raise either of them"
            )
        return left

    def arguments(self, height: int | None, width: int | None) -> dict[str, Any]:
        """What the pipeline takes of it."""
        image = resized(self.picture, self.pipeline, height, width)
        return {"image": image, "strength": self.strength}

    @staticmethod
    def told(image: Any, strength: float) -> dict[str, Any]:
        """The beginning as settings tell it: a file's name, not its pixels."""
        if image is None:
            return {"image": None, "strength": None}
        named = isinstance(image, (str, os.PathLike))
        return {"image": Path(image).name if named else "(given)", "strength": strength}


def resized(
    picture: Image.Image, pipeline: Any, height: int | None, width: int | None
) -> Image.Image:
    """A picture in the size it is drawn in.

    It keeps its shape: its shorter side becomes the base's own size, unless height and width say
    otherwise.
    """
    scale = pipeline.vae_scale_factor
    own = pipeline.unet.config.sample_size * scale
    ratio = own / min(picture.size)
    size = [max(scale, round(side * ratio / scale) * scale) for side in picture.size]
    return picture.resize((width or size[0], height or size[1]), Image.Resampling.LANCZOS)
