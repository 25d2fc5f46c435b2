"""Bases: stock pipelines by name, their schedulers, and the prompt space an encoder has of them."""

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


MIN_PNDM_STEPS = 4  # at least: the method begins with as many


def check_scheduler(name: str | None, steps: int | None = None) -> None:
    """Refuses a name that stands for no scheduler; None is the base's own.

    Args:
        name: a key of SCHEDULERS, or None.
        steps: that it shall draw in, where they are known.

    Raises:
        ValueError: there is no such scheduler, or it needs more steps.
    """
    if name is not None and name not in SCHEDULERS:
        raise ValueError(f"there is no scheduler {name!r}; there are: {', '.join(SCHEDULERS)}")
    if name == "pndm" and steps is not None and steps < MIN_PNDM_STEPS:
        raise ValueError(f"pndm draws in at least {MIN_PNDM_STEPS} steps, not {steps}")


def check_steps(scheduler: Any, steps: int) -> None:
    """Refuses fewer steps than a pipeline's scheduler can draw in.

    Raises:
        ValueError: they are too few.
    """
    uses_prk_steps = not scheduler.config.get(
        "skip_prk_steps", True
    )  # PNDM's; left out, one step does
    if uses_prk_steps and steps < MIN_PNDM_STEPS:
        raise ValueError(f"pndm draws in at least {MIN_PNDM_STEPS} steps, not {steps}")


def new_scheduler(name: str, scheduler: Any) -> Any:
    """A scheduler by name with the noise and prediction type of the base's own."""
    import diffusers

    check_scheduler(name)
    return getattr(diffusers, SCHEDULERS[name]).from_config(scheduler.config)


def find_prompt_space(encoder: AudioPromptEncoder, base_model: str) -> str:
    """The encoder's prompt space of a base: the one aligned with it, else the default one."""
    for name, space in encoder.config.spaces.items():
        if base_model in (name, space["base_model"]):
            return str(name)
    return str(encoder.config.default_space)


def load_base_pipeline(base_model: str, dtype: torch.dtype) -> Any:
    """A stock pipeline by name, without progress bars.

    Raises:
        ValueError: there is no such base.
    """
    from diffusers import DiffusionPipeline

    try:
        pipeline = DiffusionPipeline.from_pretrained(lookup(BASE_MODELS, base_model), dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise ValueError(
            f"there is no base {base_model!r}: give a name ({', '.join(BASE_MODELS)}), the folder of a "
            f"pipeline, or a hub id that can be reached ({reason})"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
