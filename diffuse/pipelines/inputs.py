"""Sounds that are given together: one, several with weights, or one a level."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from align.audio.files import AudioError
from align.prompts.blending import normalized_weights
from align.prompts.embeds import PromptEmbeds
from diffuse.models.levels import foreground_as_level, level_slice
from diffuse.pipelines.composition import check_relation


@dataclass(frozen=True)
class AudioInputs:
    """What was given to be heard.

    Attributes:
        recordings: at least one.
        weights: one a recording, with sum one.
        levels: the level each recording stands for; empty where each stands for all.
    """

    clips: list[Any]
    weights: list[float]
    levels: list[str]

    @classmethod
    def from_inputs(cls, given: Any, weights: Sequence[float] | None = None) -> AudioInputs:
        """One recording, a list of recordings with weights, or recordings by level.

        Raises:
            AudioError: there is nothing to hear.
            ValueError: a level does not exist, or the weights do not fit.
        """
        levels: list[str] = []
        if isinstance(given, Mapping) and not {"array", "bytes", "path"} & set(given):
            levels, clips = list(given), list(given.values())
            for level in levels:
                level_slice(level)
            if weights is not None:
                raise ValueError("sounds by level take level_scales, not weights")
        else:
            clips = list(given) if isinstance(given, list) else [given]
        if not clips or any(clip is None for clip in clips):
            raise AudioError("there is no sound: give a recording, or several")
        return cls(clips, normalized_weights(weights, len(clips)), levels)

    def weighted_mean(self, rows: torch.Tensor) -> torch.Tensor:
        """(1, ...) of (N, ...), one a recording, by their weights; exact where there is one."""
        if len(rows) == 1:
            return rows
        weights = rows.new_tensor(self.weights).view(-1, *[1] * (rows.ndim - 1))
        return (weights * rows).sum(0, keepdim=True)

    def combined_embeds(self, conditioning: Any) -> PromptEmbeds:
        """The prompt embeds of what is heard, of all recordings by their weights.

        Args:
            heard: the recordings, a `clips.Heard`.
        """
        pooled = None if conditioning.pooled is None else self.weighted_mean(conditioning.pooled)
        return PromptEmbeds(self.weighted_mean(conditioning.embeds), pooled)

    def weighted_tokens(self, tokens: torch.Tensor) -> list[tuple[float, torch.Tensor]]:
        """What plays together: level tokens (1, J, D) and how much each counts.

        Args:
            tokens: (N, J, D), one row a recording.

        Several sounds are heard side by side, each by an attention of its own. Sounds by level
        are one: each level says what is in front in its recording, and a level that none stands
        for comes from the first.
        """
        if not self.levels:
            rows = tokens.split(1)
            return list(zip(self.weights, rows, strict=True))
        whole = tokens[:1].clone()
        for row, level in enumerate(self.levels):
            whole[:, level_slice(level)] = foreground_as_level(tokens[row : row + 1], level)
        return [(1.0, whole)]

    def metadata(self) -> list[dict[str, Any]]:
        """The sounds as settings tell them: names of files, not their samples."""
        names = self.levels or [""] * len(self.clips)
        rows = zip(self.clips, self.weights, names, strict=True)
        return [
            {"clip": _clip_name(r), **({"level": level} if level else {"weight": weight})}
            for r, weight, level in rows
        ]


def _clip_name(clip: Any) -> str:
    if isinstance(clip, (str, os.PathLike)):
        return os.path.basename(os.fspath(clip))
    return f"({type(clip).__name__})"


SCALE_OPTIONS = ("audio_scale", "guidance_scale", "audio_guidance_scale")
MAX_SEED = 2**63 - 1  # of torch's generators
SIZE_MULTIPLE = 8  # pixels: diffusers takes sides that this divides


def check_inputs(options: Mapping[str, Any], by_level: bool, has_adapter: bool) -> None:
    """Refuses what `SoundPipeline` cannot draw.

    Args:
        options: its keyword arguments by name.
        by_level: the sounds are given by level.
        adapted: an adapter hears.

    Raises:
        ValueError: an option is out of its range, or does not fit the others.
    """
    if not has_adapter:
        _check_without_adapter(options, by_level)
    check_relation(options["relation"])
    for name in ("num_inference_steps", "num_images"):
        if options[name] < 1:
            raise ValueError(f"{name} is at least 1, not {options[name]}")
    if not 0 <= options["seed"] <= MAX_SEED - options["num_images"]:
        raise ValueError(f"seed is a whole number from 0 to 2**63, not {options['seed']}")
    for name in SCALE_OPTIONS:
        if options[name] is not None:
            _check_scale(name, options[name])
    for level, scale in (options["level_scales"] or {}).items():
        level_slice(level)
        _check_scale(f"level_scales of {level}", scale)
    for name in ("height", "width"):
        side = options[name]
        if side is not None and (side < SIZE_MULTIPLE or side % SIZE_MULTIPLE):
            raise ValueError(f"{name} is a multiple of {SIZE_MULTIPLE} pixels, not {side}")


def _check_scale(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is a number from 0 on, not {value}")


def _check_without_adapter(options: Mapping[str, Any], by_level: bool) -> None:
    for name in ("audio_guidance_scale", "level_scales"):
        if options[name] is not None:
            raise ValueError(f"{name} needs an adapter: without one there is only text")
    if tuple(options["audio_interval"]) != (0.0, 1.0):
        raise ValueError("audio_interval needs an adapter: without one there is only text")
    if by_level:
        raise ValueError("sounds by level need an adapter: give one sound, or a list")
    if options["prompt"] == "":
        raise ValueError("without text and without an adapter nothing hears the sound")


def image_size(pipeline: Any, height: int | None, width: int | None) -> dict[str, int]:
    """The sides a pipeline is told: none where none is given, else both.

    diffusers overlooks a side that is given alone.
    """
    if height is None and width is None:
        return {}
    own = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return {"height": height or own, "width": width or own}
