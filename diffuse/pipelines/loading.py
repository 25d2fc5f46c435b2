"""Loading of base models, schedulers and prompt spaces by name."""

from __future__ import annotations

from typing import Any

import torch

from align.models.encoder import AudioPromptEncoder
from align.registry import BASE_MODELS, first_line, lookup

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


MIN_PNDM_STEPS = 4  # number of Runge-Kutta warmup steps


def check_scheduler(name: str | None, steps: int | None = None) -> None:
    """Check that a scheduler exists.

    Args:
        name: A key of SCHEDULERS, or None for the base model's own.
        steps: Number of denoising steps, if known.

    Raises:
        ValueError: If there is no such scheduler, or it needs more steps.
    """
    if name is not None and name not in SCHEDULERS:
        raise ValueError(f"there is no scheduler {name!r}; there are: {', '.join(SCHEDULERS)}")
    if name == "pndm" and steps is not None and steps < MIN_PNDM_STEPS:
        raise ValueError(f"pndm needs at least {MIN_PNDM_STEPS} steps, not {steps}")


def check_steps(scheduler: Any, steps: int) -> None:
    """Check that the scheduler of a pipeline supports a number of denoising steps.

    Args:
        scheduler: Diffusers scheduler.
        steps: Number of denoising steps.

    Raises:
        ValueError: If there are too few steps.
    """
    # Only PNDM schedulers have this key; without Runge-Kutta steps any number of steps works.
    uses_prk_steps = not scheduler.config.get("skip_prk_steps", True)
    if uses_prk_steps and steps < MIN_PNDM_STEPS:
        raise ValueError(f"pndm needs at least {MIN_PNDM_STEPS} steps, not {steps}")


def new_scheduler(name: str, scheduler: Any) -> Any:
    """Return a scheduler by name, with the noise schedule and prediction type of another one.

    Args:
        name: A key of SCHEDULERS.
        scheduler: Scheduler whose config is used.
    """
    import diffusers

    check_scheduler(name)
    return getattr(diffusers, SCHEDULERS[name]).from_config(scheduler.config)


def find_prompt_space(encoder: AudioPromptEncoder, base_model: str) -> str:
    """Return the name of the encoder's prompt space for a base model; by default its default space.

    Args:
        encoder: Aligned encoder.
        base_model: Name, folder or Hub id of the base model.
    """
    for name, space in encoder.config.spaces.items():
        if base_model in (name, space["base_model"]):
            return str(name)
    return str(encoder.config.default_space)


def load_base_pipeline(base_model: str, dtype: torch.dtype) -> Any:
    """Load a diffusers pipeline by name, without progress bars.

    Args:
        base_model: Short name, folder or Hub id.
        dtype: Data type of the weights.

    Raises:
        ValueError: If there is no such pipeline.
    """
    from diffusers import DiffusionPipeline

    try:
        pipeline = DiffusionPipeline.from_pretrained(lookup(BASE_MODELS, base_model), dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise ValueError(
            f"there is no base model {base_model!r}: give a short name "
            f"({', '.join(BASE_MODELS)}), the folder of a pipeline, or an available Hub id "
            f"({reason})"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
