"""Audio inputs of a generation: one clip, several with weights, or one per level."""

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
    """Audio inputs of a generation.

    Attributes:
        clips: Audio inputs, at least one.
        weights: One weight per clip, normalized to sum to 1.
        levels: The level of each clip; empty if each clip conditions all levels.
    """

    clips: list[Any]
    weights: list[float]
    levels: list[str]

    @classmethod
    def from_inputs(cls, given: Any, weights: Sequence[float] | None = None) -> AudioInputs:
        """Parse one clip, a list of clips with weights, or clips by level.

        Args:
            given: Audio input, list of audio inputs, or mapping from levels to audio inputs.
            weights: One weight per clip of a list; equal weights by default.

        Raises:
            AudioError: If there is no audio.
            ValueError: If a level does not exist or the weights do not match the clips.
        """
        levels: list[str] = []
        if isinstance(given, Mapping) and not {"array", "bytes", "path"} & set(given):
            levels, clips = list(given), list(given.values())
            for level in levels:
                level_slice(level)
            if weights is not None:
                raise ValueError("audio by level takes level_scales, not audio_weights")
        else:
            clips = list(given) if isinstance(given, list) else [given]
        if not clips or any(clip is None for clip in clips):
            raise AudioError("no audio given: give an audio file, or several")
        return cls(clips, normalized_weights(weights, len(clips)), levels)

    def weighted_mean(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean (1, ...) of rows; a single row is returned unchanged.

        Args:
            rows: Tensor (N, ...), one row per clip.
        """
        if len(rows) == 1:
            return rows
        weights = rows.new_tensor(self.weights).view(-1, *[1] * (rows.ndim - 1))
        return (weights * rows).sum(0, keepdim=True)

    def combined_embeds(self, conditioning: Any) -> PromptEmbeds:
        """Return the weighted mean of the prompt embeds of all clips.

        Args:
            conditioning: `AudioConditioning` of the clips.
        """
        pooled = None if conditioning.pooled is None else self.weighted_mean(conditioning.pooled)
        return PromptEmbeds(self.weighted_mean(conditioning.embeds), pooled)

    def weighted_tokens(self, tokens: torch.Tensor) -> list[tuple[float, torch.Tensor]]:
        """Return level tokens (1, J, D) with their weights, to condition on together.

        Several clips are attended to separately and combined by their weights. Clips by level are
        merged into one row: each level is the foreground of its clip, and a level without a clip
        comes from the first clip.

        Args:
            tokens: Level tokens (N, J, D), one row per clip.
        """
        if not self.levels:
            rows = tokens.split(1)
            return list(zip(self.weights, rows, strict=True))
        merged = tokens[:1].clone()
        for row, level in enumerate(self.levels):
            merged[:, level_slice(level)] = foreground_as_level(tokens[row : row + 1], level)
        return [(1.0, merged)]

    def metadata(self) -> list[dict[str, Any]]:
        """Return the metadata of the clips: names of files, not samples."""
        names = self.levels or [""] * len(self.clips)
        rows = zip(self.clips, self.weights, names, strict=True)
        return [
            {"audio": _clip_name(clip), **({"level": level} if level else {"weight": weight})}
            for clip, weight, level in rows
        ]


def _clip_name(clip: Any) -> str:
    if isinstance(clip, (str, os.PathLike)):
        return os.path.basename(os.fspath(clip))
    return f"({type(clip).__name__})"


SCALE_OPTIONS = ("audio_scale", "guidance_scale", "audio_guidance_scale")
MAX_SEED = 2**63 - 1  # limit of torch generators
SIZE_MULTIPLE = 8  # diffusers requires sides that are multiples of 8 pixels


def check_inputs(options: Mapping[str, Any], by_level: bool, has_adapter: bool) -> None:
    """Validate the arguments of a `SoundPipeline` call.

    Args:
        options: Keyword arguments by name.
        by_level: Whether the audio is given by level.
        has_adapter: Whether an adapter is attached.

    Raises:
        ValueError: If an argument is out of range or does not fit the others.
    """
    if not has_adapter:
        _check_without_adapter(options, by_level)
    check_relation(options["relation"])
    for name in ("num_inference_steps", "num_images"):
        if options[name] < 1:
            raise ValueError(f"{name} must be at least 1, not {options[name]}")
    if not 0 <= options["seed"] <= MAX_SEED - options["num_images"]:
        raise ValueError(f"seed must be an integer from 0 to 2**63, not {options['seed']}")
    for name in SCALE_OPTIONS:
        if options[name] is not None:
            _check_scale(name, options[name])
    for level, scale in (options["level_scales"] or {}).items():
        level_slice(level)
        _check_scale(f"level_scales of {level}", scale)
    for name in ("height", "width"):
        side = options[name]
        if side is not None and (side < SIZE_MULTIPLE or side % SIZE_MULTIPLE):
            raise ValueError(f"{name} must be a multiple of {SIZE_MULTIPLE} pixels, not {side}")


def _check_scale(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, not {value}")


def _check_without_adapter(options: Mapping[str, Any], by_level: bool) -> None:
    for name in ("audio_guidance_scale", "level_scales"):
        if options[name] is not None:
            raise ValueError(f"{name} needs an adapter: give one or leave it out")
    if tuple(options["audio_interval"]) != (0.0, 1.0):
        raise ValueError("audio_interval needs an adapter: give one or leave it out")
    if by_level:
        raise ValueError("audio by level needs an adapter: give one audio file, or a list")
    if options["prompt"] == "":
        raise ValueError("an empty prompt needs an adapter: give one or leave the prompt out")


def image_size(pipeline: Any, height: int | None, width: int | None) -> dict[str, int]:
    """Return the size arguments of a pipeline call: none, or both.

    diffusers ignores a side that is given alone.

    Args:
        pipeline: Diffusers pipeline.
        height: Image height in pixels, or None.
        width: Image width in pixels, or None.
    """
    if height is None and width is None:
        return {}
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return {"height": height or size, "width": width or size}
