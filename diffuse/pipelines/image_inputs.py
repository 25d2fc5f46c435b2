"""Image inputs of image-to-image generation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffuse.data.images import open_image


@dataclass(frozen=True)
class InitImage:
    """An image to start from, with the image-to-image pipeline.

    Attributes:
        image: Image (RGB) in its original size.
        strength: Amount of noise added to the image, above 0 and up to 1.
        pipeline: Image-to-image pipeline with the same models.
    """

    image: Image.Image
    strength: float
    pipeline: Any

    @classmethod
    def from_image(cls, image: Any, strength: float, pipeline: Any) -> InitImage:
        """Open an image and build the image-to-image pipeline.

        Args:
            image: Image or path.
            strength: Amount of noise added to the image, above 0 and up to 1.
            pipeline: Text-to-image pipeline.

        Raises:
            ValueError: If the image cannot be read or `strength` is out of range.
        """
        from diffusers import AutoPipelineForImage2Image

        if not 0 < strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, not {strength}")
        img2img = AutoPipelineForImage2Image.from_pipe(pipeline)
        img2img.set_progress_bar_config(disable=True)
        return cls(open_image(image), strength, img2img)

    def num_denoising_steps(self, num_inference_steps: int) -> int:
        """Return the number of denoising steps that `strength` leaves.

        Args:
            num_inference_steps: Number of steps of the whole schedule.

        Raises:
            ValueError: If there is none.
        """
        num_steps = min(int(num_inference_steps * self.strength), num_inference_steps)
        if not num_steps:
            raise ValueError(
                f"{num_inference_steps} steps at strength {self.strength} leave no denoising step: "
                "increase either of them"
            )
        return num_steps

    def pipeline_kwargs(self, height: int | None, width: int | None) -> dict[str, Any]:
        """Return the image arguments of the pipeline call.

        Args:
            height: Image height in pixels, or None.
            width: Image width in pixels, or None.
        """
        image = resize_image(self.image, self.pipeline, height, width)
        return {"image": image, "strength": self.strength}

    @staticmethod
    def metadata(image: Any, strength: float) -> dict[str, Any]:
        """Return the metadata of an image input: the name of its file, not its pixels.

        Args:
            image: Image or path, or None.
            strength: Strength of the generation.
        """
        if image is None:
            return {"image": None, "strength": None}
        named = isinstance(image, (str, os.PathLike))
        return {"image": Path(image).name if named else "(given)", "strength": strength}


def resize_image(
    image: Image.Image, pipeline: Any, height: int | None, width: int | None
) -> Image.Image:
    """Resize an image for a pipeline, keeping its aspect ratio.

    The shorter side becomes the native size of the pipeline; `height` and `width` override it.

    Args:
        image: Image of any size.
        pipeline: Diffusers pipeline.
        height: Image height in pixels, or None.
        width: Image width in pixels, or None.
    """
    scale = pipeline.vae_scale_factor
    own = pipeline.unet.config.sample_size * scale
    ratio = own / min(image.size)
    size = [max(scale, round(side * ratio / scale) * scale) for side in image.size]
    return image.resize((width or size[0], height or size[1]), Image.Resampling.LANCZOS)
