"""Resumable training loop of the `mini` models, seeded by the step."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

CHECKPOINT_EVERY = 250
Loss = Callable[[Any, int], torch.Tensor]  # takes the model and the step


@dataclass(frozen=True)
class TrainingPlan:
    """Hyperparameters of a stage.

    Attributes:
        steps: Number of optimizer steps.
        learning_rate: Peak of the cosine schedule, after a linear warmup over 3% of the steps.
        weight_decay: AdamW weight decay.
        ema_decay: EMA decay of the weights; the average is returned. 0 disables it.
        mixed_precision: Whether to run the forward pass in bfloat16.
    """

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    ema_decay: float = 0.0
    mixed_precision: bool = True


def device() -> torch.device:
    """Return the CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _lr_factor(plan: TrainingPlan, step: int) -> float:
    warm = max(1, plan.steps * 3 // 100)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, plan.steps - warm)))


def fit(
    name: str,
    model: Any,
    loss: Loss,
    plan: TrainingPlan,
    folder: Path,
) -> Any:
    """Train a model; an interrupted run resumes from its last checkpoint.

    Args:
        name: Name of the stage, for the progress and the checkpoint.
        model: Model to train in place.
        loss: Scalar loss of a step; its data must depend on the step only.
        plan: Hyperparameters.
        folder: Directory of the checkpoint.

    Returns:
        The model, or its EMA if the plan has one.
    """
    model.to(device()).train()
    ema_model = copy.deepcopy(model).eval() if plan.ema_decay else None
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(plan, step))
    kept = {"model": model, "optimizer": optimizer, "schedule": schedule, "mean": ema_model}
    path = folder / f"{name}.pt"
    start, began, shown = _resume(path, kept), time.monotonic(), 0.0
    for step in range(start, plan.steps):
        torch.manual_seed(step)
        with torch.autocast(device().type, torch.bfloat16, enabled=plan.mixed_precision):
            value = loss(model, step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if ema_model is not None:
            _update_ema(ema_model, model, min(plan.ema_decay, (step + 1) / (step + 10)))
        shown = value.item() if step == start else 0.95 * shown + 0.05 * value.item()
        if (step + 1) % 50 == 0 or step + 1 == plan.steps:
            pace = (time.monotonic() - began) / (step + 1 - start)
            left = pace * (plan.steps - step - 1) / 60
            print(
                f"{name}: step {step + 1}/{plan.steps}, loss {shown:.4f}, "
                f"{pace:.2f} s a step, {left:.1f} min left",
                flush=True,
            )
        if (step + 1) % CHECKPOINT_EVERY == 0:
            _save_checkpoint(path, kept, step + 1)
    return (ema_model if ema_model is not None else model).eval()


@torch.no_grad()
def _update_ema(ema_model: nn.Module, model: nn.Module, decay: float) -> None:
    for kept, new in zip(ema_model.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for own, other in zip(ema_model.buffers(), model.buffers(), strict=True):
        own.copy_(other)


def _save_checkpoint(path: Path, kept: dict, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.state_dict() for k, v in kept.items() if v is not None}
    partial = path.with_suffix(".partial")
    torch.save({"step": step, **state}, partial)
    partial.replace(path)  # atomic, so that an interrupted write keeps the last checkpoint


def _resume(path: Path, kept: dict) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device(), weights_only=True)
    for key, value in kept.items():
        if value is not None:
            value.load_state_dict(state[key])
    return int(state["step"])
