"""Evaluate the `mini` models: `python -m soundprompt.mini.check`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from align.cli import CommandParser
from soundprompt.mini.build.samples import render_batch, rng_of, to_tensor
from soundprompt.mini.build.spoil import corrupt_far, corrupt_near
from soundprompt.mini.captions import caption
from soundprompt.mini.image_classifier import UNCLEAR, MiniImagePrediction, load_image_classifier
from soundprompt.mini.models import CLIP, STABLE_DIFFUSION
from soundprompt.mini.pictures import render
from soundprompt.mini.world import CLASSES, View, random_view


def classifier_accuracy(n: int) -> dict[str, float]:
    """Evaluate the image classifier and CLIP on held-out rendered images.

    Args:
        n: Number of images.
    """
    views, images = render_batch(rng_of("check", 1), n)
    predictions = load_image_classifier().classify(images)
    pairs = list(zip(views, predictions, strict=True))
    return {
        "classifier_accuracy": _share(_all_correct(v, s) for v, s in pairs),
        "clip_accuracy": _share(_clip_agreement(views, images)),
    }


def _all_correct(view: View, prediction: MiniImagePrediction) -> bool:
    return prediction.matches_view(view) and prediction.color == view.color


def unclear_detection(n: int) -> dict[str, float]:
    """Evaluate the recall of "unclear" on images with a corrupted foreground or background.

    Args:
        n: Number of images of each kind.
    """
    rng = rng_of("check", 2)
    near = [corrupt_near(random_view(rng), rng) for _ in range(n)]
    far = [corrupt_far(random_view(rng, far_prob=1), rng) for _ in range(n)]
    return {
        "unclear_near_recall": _share(
            v.near == UNCLEAR for v in load_image_classifier().classify(near)
        ),
        "unclear_far_recall": _share(
            v.far == UNCLEAR for v in load_image_classifier().classify(far)
        ),
    }


@torch.no_grad()
def autoencoder_accuracy(n: int) -> dict[str, float]:
    """Evaluate the autoencoder on rendered images: accuracy of reconstructions, and PSNR in dB.

    Args:
        n: Number of images.
    """
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(f"{STABLE_DIFFUSION}/vae", dtype=torch.float32)
    views, images = render_batch(rng_of("check", 3), n)
    back, psnr = [], []
    for start in range(0, n, 50):
        pixels = to_tensor(images[start : start + 50])
        again = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
        psnr.append(-10 * ((again - pixels) / 2).square().mean((1, 2, 3)).log10())
        back += [Image.fromarray(p) for p in _bytes(again)]
    predictions = load_image_classifier().classify(back)
    right = (s.matches_view(v) for v, s in zip(views, predictions, strict=True))
    return {
        "autoencoder_accuracy": _share(right),
        "autoencoder_psnr_db": torch.cat(psnr).mean().item(),
    }


def _bytes(pixels: torch.Tensor) -> np.ndarray:
    return ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def text_accuracy(n: int, output_dir: Path) -> dict[str, float]:
    """Evaluate images that are generated from captions.

    Uses `StableDiffusionPipeline` with guidance scale 5, 20 steps and seeds 0 to n - 1. Half of
    the captions have a background; all name the time of day and the color.

    Args:
        n: Number of images.
        output_dir: Output directory of a grid of the first images.
    """
    from align.evaluation.generation import ImageGenerator
    from align.prompts.space import PromptSpace

    rng = rng_of("check", 4)
    views = [random_view(rng, near=CLASSES[i % len(CLASSES)]) for i in range(n)]
    space = PromptSpace.from_pretrained("mini")
    prompts = space.encode([caption(view, rng, scene=True, color=True) for view in views])
    unconditional = type(prompts)(space.unconditional.embeds.expand(n, -1, -1))
    images = ImageGenerator.from_pretrained("mini", 20, 5.0).generate(
        prompts, unconditional, range(n)
    )
    _grid(images[:60], output_dir / "text.png")
    predictions = load_image_classifier().classify(images)
    pairs = list(zip(views, predictions, strict=True))
    return {
        "text_object_accuracy": _share(s.near == v.near for v, s in pairs),
        "text_background_accuracy": _share(s.far == v.far for v, s in pairs if v.far),
        "text_scene_accuracy": _share(s.scene == v.scene for v, s in pairs),
        "text_object_and_scene_accuracy": _share(
            s.near == v.near and s.scene == v.scene for v, s in pairs
        ),
        "text_all_but_color_accuracy": _share(s.matches_view(v) for v, s in pairs),
        "text_color_accuracy": _share(s.color == v.color for v, s in pairs if v.color),
        "text_object_accuracy_clip": _share(_clip_agreement(views, images)),
    }


@torch.no_grad()
def _clip_agreement(views: Sequence[View], images: Sequence[Image.Image]) -> list[bool]:
    """Whether the nearest rendered image in CLIP's image space has the same foreground.

    It is independent of the image classifier. The neighbors are 20 rendered images per class.
    """
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(CLIP, dtype=torch.float32).eval()

    def embeds(images: Sequence[Image.Image]) -> torch.Tensor:
        parts = [
            clip.vision_model(pixel_values=to_tensor(images[i : i + 100])).pooler_output
            for i in range(0, len(images), 100)
        ]
        return torch.nn.functional.normalize(clip.visual_projection(torch.cat(parts)), dim=1)

    rng = rng_of("check", 5)
    bank = [random_view(rng, near=CLASSES[i % len(CLASSES)]) for i in range(20 * len(CLASSES))]
    near = embeds(images) @ embeds([render(view, rng) for view in bank]).T
    best = near.argmax(1).tolist()
    return [bank[b].near == view.near for b, view in zip(best, views, strict=True)]


def _grid(images: Sequence[Image.Image], path: Path, columns: int = 10) -> None:
    side, rows = images[0].width + 2, -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side))
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * side, i // columns * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


def _share(right: Iterable[bool]) -> float:
    cases = list(right)
    return float(np.mean(cases))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the metrics and write them, and a grid of images, to a directory."""
    parser = CommandParser("python -m soundprompt.mini.check", description=__doc__)
    parser.add_argument(
        "--num_images", type=int, default=1000, help="Number of images to generate from captions."
    )
    parser.add_argument(
        "--num_renders", type=int, default=1000, help="Number of rendered images to classify."
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/mini/check"), help="Output directory."
    )
    options = parser.parse_args(arguments)
    figures = classifier_accuracy(options.num_renders) | unclear_detection(options.num_renders)
    figures |= autoencoder_accuracy(options.num_renders)
    figures |= text_accuracy(options.num_images, options.output_dir)
    for name, value in figures.items():
        print(f"{name:<32} {value:.4f}")
    path = options.output_dir / "figures.json"
    path.write_text(json.dumps({k: round(v, 4) for k, v in figures.items()}, indent=2) + "\n")
    print(f"Metrics: {path}. Images: {options.output_dir / 'text.png'}.")


if __name__ == "__main__":
    main()
