"""Training of the image classifier on rendered and on corrupted images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import ResNetConfig

from soundprompt.mini.build.samples import rng_of, to_tensor
from soundprompt.mini.build.saving import save_half
from soundprompt.mini.build.spoil import corrupt_far, corrupt_near
from soundprompt.mini.build.training_loop import TrainingPlan, device, fit
from soundprompt.mini.image_classifier import CLASSES_BY_TASK, NOTHING, UNCLEAR, MiniImageClassifier
from soundprompt.mini.pictures import render
from soundprompt.mini.world import View, random_view

PLAN = TrainingPlan(steps=2500, learning_rate=2e-3, weight_decay=0.02, ema_decay=0.99)
BATCH = 48
IGNORE_INDEX = -100  # targets that the cross entropy ignores


def example(rng: np.random.Generator) -> tuple[Image.Image, dict[str, int]]:
    """Sample a rendered or corrupted image and its target class of each task.

    Args:
        rng: Random generator.
    """
    kind = rng.random()
    if kind < 0.3:
        view = random_view(rng)
        targets = dict.fromkeys(CLASSES_BY_TASK, IGNORE_INDEX)
        return corrupt_near(view, rng), targets | {"near": CLASSES_BY_TASK["near"].index(UNCLEAR)}
    if kind < 0.5:
        view = random_view(rng, far_prob=1)
        return corrupt_far(view, rng), _targets(view) | {
            "far": CLASSES_BY_TASK["far"].index(UNCLEAR)
        }
    view = random_view(rng)
    return render(view, rng), _targets(view)


def _targets(view: View) -> dict[str, int]:
    labels = {
        "near": view.near,
        "far": view.far or NOTHING,
        "scene": view.scene,
        "colour": view.color or NOTHING,
    }
    return {task: CLASSES_BY_TASK[task].index(label) for task, label in labels.items()}


def _degrade(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Apply small artifacts, like those of generators and autoencoders, that keep the content."""
    shift = [int(v) for v in rng.integers(-2, 3, 2)]
    pixels = torch.roll(pixels, shift, (2, 3))
    grain = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.12), pixels.shape)).float()
    pixels = pixels * rng.uniform(0.85, 1.1) + rng.uniform(-0.08, 0.08) + grain
    if rng.random() < 0.4:
        pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return pixels.clamp(-1, 1)


def _loss(model: Any, step: int) -> torch.Tensor:
    rng = rng_of("image_classifier", step)
    images, labels = zip(*(example(rng) for _ in range(BATCH)), strict=True)
    logits = model(_degrade(to_tensor(images), rng).to(device()))
    total = torch.zeros((), device=device())
    for task in CLASSES_BY_TASK:
        targets = torch.tensor([each[task] for each in labels], device=device())
        total = total + F.cross_entropy(logits[task].float(), targets, label_smoothing=0.02)
    return total


def build(folder: Path, weights: Path) -> None:
    """Train the image classifier and save it.

    Args:
        folder: Directory of the checkpoints.
        weights: Output directory of the trained models.
    """
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=24,
        hidden_sizes=[24, 48, 96, 160],
        depths=[1, 2, 2, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
    )
    classifier = fit("image_classifier", MiniImageClassifier(config), _loss, PLAN, folder)
    save_half(classifier, weights / "image_classifier")
