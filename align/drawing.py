"""Pictures from prompt embeds by a stock pipeline, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from align.bases import load_picture_side
from align.prompts import Prompts


@dataclass(frozen=True)
class Artist:
    """A pipeline loaded without text encoders, with the settings pictures are drawn by.

    Attributes:
        pipeline: any that takes prompt_embeds and negative_prompt_embeds.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
    """

    pipeline: Any
    steps: int
    guidance: float

    @classmethod
    def from_pretrained(
        cls, base: str, steps: int, guidance: float, device: torch.device | None = None
    ) -> Artist:
        """Loads the picture side of a base alone.

        Args:
            base: a short name, a folder or a hub id.
            steps: denoising steps.
            guidance: classifier-free guidance scale.
            device: where it draws; a CUDA GPU where there is one by default.
        """
        if device is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        half = device.type == "cuda"
        pipeline = load_picture_side(base, dtype=torch.float16 if half else torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), steps, guidance)

    @property
    def unet(self) -> torch.nn.Module:
        """The base's UNet, or the transformer that stands in its place."""
        found = getattr(self.pipeline, "unet", None)
        return self.pipeline.transformer if found is None else found

    def draw(
        self,
        prompts: Prompts,
        null: Prompts,
        seeds: Sequence[int],
        title: str = "pictures",
        batch_size: int = 32,
    ) -> list[Image.Image]:
        """One picture for each of N prompts.

        Args:
            prompts: (N, L, D) embeds, and pooled.
            null: (N, L, D) unconditional embeds, and pooled.
            seeds: N, of the noise that each picture starts from.
            title: what the progress bar says.
            batch_size: pictures drawn at once.
        """
        arguments = prompts.arguments(null)
        images: list[Image.Image] = []
        starts = range(0, len(seeds), batch_size)
        for start in tqdm(starts, title, disable=len(starts) < 2):
            part = slice(start, start + batch_size)
            target = {"device": self.pipeline.device, "dtype": self.unet.dtype}
            images += self.pipeline(
                **{name: value[part].to(**target) for name, value in arguments.items()},
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                # Noise drawn on the CPU is the same on every machine.
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
            ).images
        return images
