"""Generate images from prompt embeds, and write sample sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from align.prompts.embeds import PromptEmbeds
from align.prompts.loading import load_image_side


@dataclass(frozen=True)
class ImageGenerator:
    """A pipeline without text encoders, with its generation settings.

    Attributes:
        pipeline: Diffusers pipeline that accepts prompt_embeds and negative_prompt_embeds.
        num_inference_steps: Number of denoising steps per image.
        guidance_scale: Classifier-free guidance scale.
    """

    pipeline: Any
    num_inference_steps: int
    guidance_scale: float

    @classmethod
    def from_pretrained(
        cls,
        base_model: str,
        num_inference_steps: int,
        guidance_scale: float,
        device: torch.device | None = None,
    ) -> ImageGenerator:
        """Loads a base pipeline without its text encoders.

        Args:
            base_model: Short name, folder or Hub id of the pipeline.
            num_inference_steps: Number of denoising steps per image.
            guidance_scale: Classifier-free guidance scale.
            device: Device to generate on. Defaults to CUDA if available.
        """
        if device is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        half = device.type == "cuda"
        pipeline = load_image_side(base_model, dtype=torch.float16 if half else torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), num_inference_steps, guidance_scale)

    @property
    def unet(self) -> torch.nn.Module:
        """The base pipeline's UNet, or its transformer."""
        found = getattr(self.pipeline, "unet", None)
        return self.pipeline.transformer if found is None else found

    def generate(
        self,
        prompts: PromptEmbeds,
        unconditional: PromptEmbeds,
        seeds: Sequence[int],
        title: str = "images",
        batch_size: int = 32,
    ) -> list[Image.Image]:
        """Generates one image for each of N prompts.

        Args:
            prompts: Prompt embeds (N, L, D), and pooled embeds.
            unconditional: Unconditional embeds (N, L, D), and pooled embeds.
            seeds: N seeds of the initial noise.
            title: Title of the progress bar.
            batch_size: Number of images generated at once.
        """
        arguments = prompts.pipeline_kwargs(unconditional)
        images: list[Image.Image] = []
        starts = range(0, len(seeds), batch_size)
        for start in tqdm(starts, title, disable=len(starts) < 2):
            part = slice(start, start + batch_size)
            target = {"device": self.pipeline.device, "dtype": self.unet.dtype}
            images += self.pipeline(
                **{name: value[part].to(**target) for name, value in arguments.items()},
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                # Noise sampled on the CPU is the same on every machine.
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
            ).images
        return images


def save_sample_sheet(
    path: Path,
    features: Sequence[np.ndarray],
    captions: Sequence[str],
    images: Mapping[str, Sequence[Image.Image]],
) -> None:
    """Writes a sheet of N columns: caption, log-mel spectrogram, and rows of images.

    Args:
        path: Path of the PNG file.
        features: N spectrograms (T, F).
        captions: N captions.
        images: N images for each row title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n, rows = len(features), 1 + len(images)
    figure = Figure(figsize=(1.5 * n + 0.8, 1.5 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.asarray(figure.subplots(rows, n, squeeze=False))
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax, feature, caption in zip(axes[0], features, captions, strict=True):
        ax.imshow(feature.T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
        ax.set_title(_wrapped(caption), fontsize=7)
    axes[0, 0].set_ylabel("audio", fontsize=9)
    for row, (title, row_images) in zip(axes[1:], images.items(), strict=True):
        row[0].set_ylabel(title, fontsize=9)
        for ax, image in zip(row, row_images, strict=True):
            ax.imshow(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _wrapped(text: str, width: int = 22) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])


def select_per_label(labels: list[str], count: int) -> list[int]:
    """Selects `count` row indices, cycling over the labels in sorted order."""
    counts: dict[str, int] = {}
    ranked = []
    for i, label in enumerate(labels):
        counts[label] = counts.get(label, -1) + 1
        ranked.append((counts[label], label, i))
    return [i for _, _, i in sorted(ranked)[:count]]
