"""Pictures that a drawing begins from in place of noise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffuse.data.images import open_image


@dataclass(frozen=True)
class InitImage:
    """A picture to begin from.

    Attributes:
        picture: in its own size, RGB.
        strength: how much of it is drawn anew, above 0 and up to 1.
        pipeline: the image-to-image pipeline with the same models.
    """

    image: Image.Image
    strength: float
    pipeline: Any

    @classmethod
    def from_image(cls, image: Any, strength: float, pipeline: Any) -> InitImage:
        """From a picture or its path.

        Raises:
            ValueError: it cannot be read, or the strength is out of range.
        """
        from diffusers import AutoPipelineForImage2Image

        if not 0 < strength <= 1:
            raise ValueError(f"strength lies above 0 (the picture) and up to 1, not {strength}")
        img2img = AutoPipelineForImage2Image.from_pipe(pipeline)
        img2img.set_progress_bar_config(disable=True)
        return cls(open_image(image), strength, img2img)

    def num_denoising_steps(self, num_inference_steps: int) -> int:
        """The denoising steps that are left when the picture stands at the beginning.

        Raises:
            ValueError: none is left.
        """
        left = min(int(num_inference_steps * self.strength), num_inference_steps)
        if not left:
            raise ValueError(
                f"{num_inference_steps} steps at strength {self.strength} draw nothing: raise either of them"
            )
        return left

    def pipeline_kwargs(self, height: int | None, width: int | None) -> dict[str, Any]:
        """What the pipeline takes of it."""
        image = resize_image(self.image, self.pipeline, height, width)
        return {"image": image, "strength": self.strength}

    @staticmethod
    def metadata(image: Any, strength: float) -> dict[str, Any]:
        """The beginning as settings tell it: a file's name, not its pixels."""
        if image is None:
            return {"image": None, "strength": None}
        named = isinstance(image, (str, os.PathLike))
        return {"image": Path(image).name if named else "(given)", "strength": strength}


def resize_image(
    image: Image.Image, pipeline: Any, height: int | None, width: int | None
) -> Image.Image:
    """A picture in the size it is drawn in.

    It keeps its shape: its shorter side becomes the base's own size, unless height and width say
    otherwise.
    """
    scale = pipeline.vae_scale_factor
    own = pipeline.unet.config.sample_size * scale
    ratio = own / min(image.size)
    size = [max(scale, round(side * ratio / scale) * scale) for side in image.size]
    return image.resize((width or size[0], height or size[1]), Image.Resampling.LANCZOS)
