"""The judge's training: drawn pictures, and spoiled ones that it must refuse."""

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
from soundprompt.mini.build.spoil import ghostly, spoiled
from soundprompt.mini.build.training_loop import Plan, device, fit
from soundprompt.mini.image_classifier import ANSWERS, NOTHING, UNCLEAR, Judge
from soundprompt.mini.pictures import draw
from soundprompt.mini.world import View, random_view

PLAN = Plan(steps=2500, learning_rate=2e-3, weight_decay=0.02, ema=0.99)
BATCH = 48
IGNORED = -100  # what cross entropy leaves out: nothing is asked of a spoiled picture's colour


def example(rng: np.random.Generator) -> tuple[Image.Image, dict[str, int]]:
    """A picture, clear or not, and the answer expected to each question."""
    kind = rng.random()
    if kind < 0.3:
        view = random_view(rng)
        refused = dict.fromkeys(ANSWERS, IGNORED)
        return spoiled(view, rng), refused | {"near": ANSWERS["near"].index(UNCLEAR)}
    if kind < 0.5:
        view = random_view(rng, far_share=1)
        return ghostly(view, rng), _answers(view) | {"far": ANSWERS["far"].index(UNCLEAR)}
    view = random_view(rng)
    return draw(view, rng), _answers(view)


def _answers(view: View) -> dict[str, int]:
    said = {
        "near": view.near,
        "far": view.far or NOTHING,
        "scene": view.scene,
        "colour": view.colour or NOTHING,
    }
    return {question: ANSWERS[question].index(answer) for question, answer in said.items()}


def _worn(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Small faults that a generator or an autoencoder leaves, and that change nothing seen."""
    shift = [int(v) for v in rng.integers(-2, 3, 2)]
    pixels = torch.roll(pixels, shift, (2, 3))
    grain = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.12), pixels.shape)).float()
    pixels = pixels * rng.uniform(0.85, 1.1) + rng.uniform(-0.08, 0.08) + grain
    if rng.random() < 0.4:
        pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return pixels.clamp(-1, 1)


def _loss(model: Any, step: int) -> torch.Tensor:
    rng = rng_of("judge", step)
    images, answers = zip(*(example(rng) for _ in range(BATCH)), strict=True)
    logits = model(_worn(to_tensor(images), rng).to(device()))
    total = torch.zeros((), device=device())
    for question in ANSWERS:
        wanted = torch.tensor([a[question] for a in answers], device=device())
        total = total + F.cross_entropy(logits[question].float(), wanted, label_smoothing=0.02)
    return total


def build(folder: Path, weights: Path) -> None:
    """Trains the judge and saves it."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=24,
        hidden_sizes=[24, 48, 96, 160],
        depths=[1, 2, 2, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
    )
    judge = fit("judge", Judge(config), _loss, PLAN, folder)
    save_half(judge, weights / "image_classifier")
