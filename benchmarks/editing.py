"""Evaluate image editing with audio: `python -m benchmarks.editing`.

Rendered images of one class are edited with audio of another class. The image classifier predicts
whether the image shows the other class (object accuracy) and the same time of day (scene
consistency); outlines measure how much of the layout is preserved. Interpret the metrics together:
a method that changes nothing preserves everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from align.cli import CommandParser
from align.evaluation.statistics import Estimate, format_table
from diffuse.pipelines.inversion import Inversion
from soundprompt.mini.image_classifier import load_image_classifier
from soundprompt.mini.outlines import outline
from soundprompt.mini.pictures import render
from soundprompt.mini.sounds import SAMPLE_RATE, recording
from soundprompt.mini.world import CLASSES, View, random_view

SEED = 777_000
Edit = Callable[["Case"], Image.Image]


@dataclass(frozen=True)
class Case:
    """Image to edit and audio of another class.

    Attributes:
        view: View of the image.
        image: Image to edit.
        target: Class of the audio.
        audio: Synthetic clip.
    """

    view: View
    image: Image.Image
    target: str
    audio: dict[str, Any]


def cases(count: int, seed: int = SEED) -> list[Case]:
    """Create cases; the classes of the images alternate.

    Args:
        count: Number of cases.
        seed: Seed of the first case.
    """
    found = []
    for i in range(count):
        rng = np.random.default_rng(seed + i)
        own = i % len(CLASSES)
        view = random_view(rng, near=CLASSES[own], far_prob=0.0)
        image = render(view, rng)
        target = CLASSES[(own + 1 + int(rng.integers(len(CLASSES) - 1))) % len(CLASSES)]
        audio = {"array": recording(target, None, rng), "sampling_rate": SAMPLE_RATE}
        found.append(Case(view, image, target, audio))
    return found


def outline_f1(one: Image.Image, other: Image.Image) -> float:
    """Compute the F1 score of the outlines of two images, with a tolerance of one pixel.

    Args:
        one: First image.
        other: Second image.
    """
    left, right = (np.asarray(outline(image))[..., 0] > 0 for image in (one, other))
    if not left.any() or not right.any():
        return float(left.any() == right.any())
    precision = (left & _grown(right)).sum() / left.sum()
    recall = (right & _grown(left)).sum() / right.sum()
    both = precision + recall
    return float(2 * precision * recall / both) if both else 0.0


def _grown(lines: np.ndarray) -> np.ndarray:
    wide = np.pad(lines, 1)
    neighbors = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
    return np.logical_or.reduce((lines, *neighbors))


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Compute the peak signal-to-noise ratio in dB of two images of the same size.

    Args:
        one: First image.
        other: Second image.
    """
    left, right = (np.asarray(image.convert("RGB"), float) for image in (one, other))
    return float(10 * np.log10(255**2 / max(1e-9, ((left - right) ** 2).mean())))


def measure(edited: Sequence[Image.Image], given: Sequence[Case]) -> dict[str, Estimate]:
    """Compute object accuracy, scene consistency and outline F1 of edited images.

    Args:
        edited: Edited images.
        given: Their cases.
    """
    predictions = load_image_classifier().classify(edited)
    pairs = list(zip(edited, given, strict=True))
    f1 = torch.tensor([outline_f1(image, case.image) for image, case in pairs])
    views = list(zip(predictions, given, strict=True))
    return {
        "object_accuracy": Estimate.proportion([p.near == case.target for p, case in views]),
        "scene_consistency": Estimate.proportion([p.scene == case.view.scene for p, case in views]),
        "outline_f1": Estimate.mean(f1),
    }


def edit_methods(
    pipe: Any, strengths: Sequence[float], injection_ratios: Sequence[float]
) -> dict[str, Edit]:
    """Create the edit functions by name, all without a text prompt.

    Args:
        pipe: `SoundPipeline` with an adapter.
        strengths: Strengths of image-to-image.
        injection_ratios: Injection ratios of inversion.
    """
    found: dict[str, Edit] = {}

    def img2img(strength: float) -> Edit:
        return lambda case: pipe(
            case.audio, prompt="", image=case.image, strength=strength
        ).images[0]  # fmt: skip

    def inversion(injection_ratio: float) -> Edit:
        return lambda case: pipe(
            case.audio, prompt="", image=Inversion(case.image, injection_ratio=injection_ratio)
        ).images[0]  # fmt: skip

    found |= {f"image-to-image, strength {s}": img2img(s) for s in strengths}
    found |= {f"inversion, injection ratio {i}": inversion(i) for i in injection_ratios}
    found["inversion, strength 1.0"] = lambda case: pipe(
        case.audio, prompt="", image=Inversion(case.image, strength=1.0)
    ).images[0]  # fmt: skip
    found["inversion, audio scale 0"] = lambda case: pipe(
        case.audio, prompt="", image=Inversion(case.image, injection_ratio=0.0), audio_scale=0.0
    ).images[0]  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the metrics of all methods and optionally save the images side by side."""
    parser = CommandParser("python -m benchmarks.editing", description=__doc__)
    parser.add_argument("--encoder", default="runs/align/mini", help="Trained mini encoder.")
    parser.add_argument("--adapter", default="runs/diffuse/mini", help="Trained mini adapter.")
    parser.add_argument("--num_images", type=int, default=20, help="Number of images per method.")
    parser.add_argument("--seed", type=int, default=SEED, help="Seed of the first image.")
    parser.add_argument(
        "--strength", type=float, nargs="*", default=[0.6, 0.8], help="Strengths of image-to-image."
    )
    parser.add_argument(
        "--injection_ratio", type=float, nargs="*", default=[0.0, 0.4, 0.8],
        help="Injection ratios of inversion.",
    )  # fmt: skip
    parser.add_argument("--sample_sheet", type=Path, help="Write all images to this PNG file.")
    options = parser.parse_args(arguments)
    from diffuse.pipelines.sound_pipeline import SoundPipeline

    pipe = SoundPipeline.from_pretrained("mini", options.encoder, options.adapter, device="cpu")
    given = cases(options.num_images, options.seed)
    rows = [[case.image for case in given]]
    for name, edit in edit_methods(pipe, options.strength, options.injection_ratio).items():
        rows.append([edit(case) for case in given])
        print(f"\n{name}\n{format_table(measure(rows[-1], given))}", flush=True)
        kept = torch.tensor([psnr(i, c.image) for i, c in zip(rows[-1], given, strict=True)])
        print(f"PSNR to the source {Estimate.mean(kept).value:.1f} dB", flush=True)
    if options.sample_sheet:
        _sheet(rows).save(options.sample_sheet)


def _sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    side = rows[0][0].width + 2
    sheet = Image.new("RGB", (side * len(rows[0]), side * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (side * x, side * y))
    return sheet


if __name__ == "__main__":
    main()
