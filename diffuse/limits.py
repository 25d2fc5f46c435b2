"""What a drawing may be asked for, checked before anything is heard or drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diffuse.composition import check_relation
from diffuse.levels import places

SCALES = ("audio_scale", "guidance_scale", "audio_guidance")
MAX_SEED = 2**63 - 1  # of torch's generators
SIDE = 8  # pixels: diffusers takes sides that this divides


def check_drawing(options: Mapping[str, Any], by_level: bool, adapted: bool) -> None:
    """Refuses what `SoundPipeline` cannot draw.

    Args:
        options: its keyword arguments by name.
        by_level: the sounds are given by level.
        adapted: an adapter hears.

    Raises:
        ValueError: an option is out of its range, or does not fit the others.
    """
    if not adapted:
        _check_without_adapter(options, by_level)
    check_relation(options["relation"])
    for name in ("num_inference_steps", "num_images"):
        if options[name] < 1:
            raise ValueError(f"{name} is at least 1, not {options[name]}")
    if not 0 <= options["seed"] <= MAX_SEED - options["num_images"]:
        raise ValueError(f"seed is a whole number from 0 to 2**63, not {options['seed']}")
    for name in SCALES:
        if options[name] is not None:
            _check_scale(name, options[name])
    for level, scale in (options["level_scales"] or {}).items():
        places(level)
        _check_scale(f"level_scales of {level}", scale)
    for name in ("height", "width"):
        side = options[name]
        if side is not None and (side < SIDE or side % SIDE):
            raise ValueError(f"{name} is a multiple of {SIDE} pixels, not {side}")


def _check_scale(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is a number from 0 on, not {value}")


def check_number(name: str, value: float) -> None:
    """Refuses what is no number that could be computed with: of NaN and infinity all is black.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name} is a number, not {value}")


def _check_without_adapter(options: Mapping[str, Any], by_level: bool) -> None:
    for name in ("audio_guidance", "level_scales"):
        if options[name] is not None:
            raise ValueError(f"{name} needs an adapter: without one there is only text")
    if tuple(options["audio_steps"]) != (0.0, 1.0):
        raise ValueError("audio_steps needs an adapter: without one there is only text")
    if by_level:
        raise ValueError("sounds by level need an adapter: give one sound, or a list")
    if options["prompt"] == "":
        raise ValueError("without text and without an adapter nothing hears the sound")


def size_of(pipeline: Any, height: int | None, width: int | None) -> dict[str, int]:
    """The sides a pipeline is told: none where none is given, else both.

    diffusers overlooks a side that is given alone.
    """
    if height is None and width is None:
        return {}
    own = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return {"height": height or own, "width": width or own}
