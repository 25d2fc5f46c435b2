"""The audio injector: UNet hooks that condition the calls of any diffusers pipeline on audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from diffuse.models.adapter import SoundAdapter
from diffuse.models.attention_processor import CROSS_ATTENTION_KWARG, AudioStates
from diffuse.models.levels import level_slice
from diffuse.models.lora import check_finite

# Weights and level tokens (B, J, D) of audio inputs that are combined.
WeightedTokens = list[tuple[float, torch.Tensor]]


@dataclass(frozen=True)
class AdapterScale:
    """Scales of an adapter.

    Attributes:
        scale: Scale of the audio; 0 disables it.
        level_scales: Scale of single levels by name, multiplied by `scale`.
        audio_interval: Fraction of the noise schedule with audio, from 0 (noise) to 1 (image).
        weight: Weight of the adapter among several.

    Raises:
        ValueError: If a level does not exist, a scale is not finite, or audio_interval is not a
            range within 0 and 1.
    """

    scale: float = 1.0
    level_scales: dict[str, float] = field(default_factory=dict)
    audio_interval: tuple[float, float] = (0.0, 1.0)
    weight: float = 1.0

    def __post_init__(self) -> None:
        for level, scale in self.level_scales.items():
            level_slice(level)
            check_finite(f"the scale of {level}", scale)
        check_finite("the audio scale", self.scale)
        check_finite("the weight of an adapter", self.weight)
        if not 0 <= self.audio_interval[0] < self.audio_interval[1] <= 1:
            raise ValueError(
                "audio_interval must be a range within 0 (noise) and 1 (image), "
                f"not {self.audio_interval}"
            )

    def at_progress(self, progress: float) -> float:
        """Return the scale at a point of the noise schedule.

        Args:
            progress: Completed fraction of the noise schedule.
        """
        start, end = self.audio_interval
        return self.scale * self.weight if start <= progress < end or end == 1 <= progress else 0.0


@dataclass
class AudioInjector:
    """Passes keys and values of the audio to a UNet.

    Attributes:
        pipeline: Pipeline that reports whether its calls use classifier-free guidance, or None.
        adapters: Attached adapters by name, shared with `AttachedAdapters`.
        scales: Scales by adapter name.
        audio_guidance_scale: Separate guidance scale of the audio. None guides text and audio
            together.
    """

    pipeline: Any
    adapters: dict[str, SoundAdapter]
    scales: dict[str, AdapterScale] = field(default_factory=dict)
    audio_guidance_scale: float | None = None
    _weighted_tokens: dict[str, WeightedTokens] = field(default_factory=dict)
    _guided: bool | None = None
    _cache: dict[Any, AudioStates] = field(default_factory=dict)
    _tripled_batch: tuple[bool, float] | None = None

    def register_hooks(self, unet: Any) -> list[Any]:
        """Register the hooks on a UNet.

        Args:
            unet: The UNet.

        Returns:
            Handles with a `remove` method.
        """
        return [
            unet.register_forward_pre_hook(self._pre_forward, with_kwargs=True),
            unet.register_forward_hook(self._post_forward),
        ]

    def set_audio(self, weighted_tokens: dict[str, WeightedTokens], guided: bool | None) -> None:
        """Set the audio of the next calls.

        Args:
            weighted_tokens: Weighted level tokens by adapter name; {} for no audio.
            guided: Whether the first half of the UNet's batch is unconditional; None asks the
                pipeline.
        """
        self._weighted_tokens, self._guided = weighted_tokens, guided
        self.clear_cache()

    def set_audio_guidance_scale(self, audio_guidance_scale: float | None) -> None:
        """Set a separate guidance scale for the audio.

        Args:
            audio_guidance_scale: Guidance scale of the audio. None guides text and audio together.
        """
        check_finite(
            "audio_guidance_scale", 0.0 if audio_guidance_scale is None else audio_guidance_scale
        )
        self.audio_guidance_scale = audio_guidance_scale
        self.clear_cache()

    def clear_cache(self) -> None:
        """Discard the cached keys and values; the next step recomputes them."""
        self._cache = {}

    def _pre_forward(
        self, unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any] | None:
        self._tripled_batch = None
        own = kwargs.get("cross_attention_kwargs") or {}
        if not self._weighted_tokens or CROSS_ATTENTION_KWARG in own:
            return None
        sample = args[0] if args else kwargs["sample"]
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        active_scales = {
            n: f for n, f in self._scales_at(timestep).items() if f and n in self._weighted_tokens
        }
        if not active_scales:
            return None
        batch, guided = len(sample), self._is_guided(len(sample))
        if self.audio_guidance_scale is not None:
            self._tripled_batch = (guided, self._text_guidance_scale(guided))
            args, kwargs = map_tensors(
                (args, kwargs), batch, lambda rows: duplicate_conditional(rows, guided)
            )
        kwargs["cross_attention_kwargs"] = {
            **own,
            CROSS_ATTENTION_KWARG: self._batch_audio(batch, guided, active_scales, unet),
        }
        return args, kwargs

    def _post_forward(self, unet: Any, args: Any, output: Any) -> Any:
        if self._tripled_batch is None:
            return None
        (guided, text), audio_scale = self._tripled_batch, self.audio_guidance_scale
        assert audio_scale is not None
        noise_pred = combine_guidance(output[0], guided, text, audio_scale)
        return (noise_pred,) if isinstance(output, tuple) else type(output)(sample=noise_pred)

    def _scales_at(self, timestep: Any) -> dict[str, float]:
        progress = 0.0
        if any(scale.audio_interval != (0.0, 1.0) for scale in self.scales.values()):
            scheduler = getattr(self.pipeline, "scheduler", None)
            last = scheduler.config.num_train_timesteps if scheduler is not None else 1000
            now = (
                float(timestep.flatten()[0])
                if isinstance(timestep, torch.Tensor)
                else float(timestep)
            )
            progress = 1 - now / last
        return {name: scale.at_progress(progress) for name, scale in self.scales.items()}

    def _is_guided(self, batch_size: int) -> bool:
        if self._guided is not None:
            return self._guided
        from_pipeline = getattr(self.pipeline, "do_classifier_free_guidance", None)
        if from_pipeline is not None:
            return bool(from_pipeline)
        if batch_size == self._num_clips():
            return False  # one row per clip leaves no unconditional half
        raise ValueError(
            "the UNet's batch has more rows than there are clips, and no pipeline reports whether "
            "it is guided: attach to the pipeline, or call play(..., guided=True or False)"
        )

    def _text_guidance_scale(self, guided: bool) -> float:
        if not guided:
            return 1.0
        found = getattr(self.pipeline, "guidance_scale", None)
        if found is None:
            raise ValueError(
                "audio_guidance_scale needs the pipeline: attach to it, not to its UNet"
            )
        return float(found)

    @torch.no_grad()
    def _batch_audio(
        self, batch: int, guided: bool, active_scales: dict[str, float], unet: Any
    ) -> AudioStates:
        kind = (
            batch,
            guided,
            tuple(active_scales.items()),
            self.audio_guidance_scale is not None,
            unet.dtype,
        )
        if kind not in self._cache:
            rows, has_audio = audio_rows(batch, self._num_clips(), guided)
            if self.audio_guidance_scale is not None:
                # The conditional rows come twice: without audio, then with it.
                count = batch // 2 if guided else batch
                rows, has_audio = rows + rows[-count:], [False] * batch + [True] * count
            audio = merge_audio(
                [self._adapter_audio(name, factor, unet) for name, factor in active_scales.items()]
            )
            self._cache[kind] = select_audio_rows(audio, rows, has_audio)
        return self._cache[kind]

    def _num_clips(self) -> int:
        return len(next(iter(self._weighted_tokens.values()))[0][1])

    def _adapter_audio(self, name: str, factor: float, unet: Any) -> AudioStates:
        adapter, levels = self.adapters[name], self.scales[name].level_scales
        states = [
            {
                layer: [audio.scaled(factor * weight).to(unet.device, unet.dtype)]
                for layer, (audio,) in adapter.compute_key_values(
                    tokens, level_scales=levels
                ).items()
            }
            for weight, tokens in self._weighted_tokens[name]
        ]
        return merge_audio(states)


def audio_rows(batch_size: int, num_clips: int, guided: bool) -> tuple[list[int], list[bool]]:
    """Assign clips to the rows of a UNet's batch.

    Args:
        batch_size: Number of rows of the UNet's batch.
        num_clips: Number of clips. Each has one or several adjacent images, in the order of
            diffusers' num_images_per_prompt.
        guided: Whether the first half of the batch is unconditional.

    Returns:
        The index of each row's clip, and whether the row is conditioned on it.

    Raises:
        ValueError: If the number of images is not a multiple of the number of clips.
    """
    num_images = batch_size // 2 if guided else batch_size
    if num_images % num_clips or (guided and batch_size % 2):
        raise ValueError(
            f"{num_clips} clips were given for {num_images} images: "
            "give one clip, one per image, or a number that divides the number of images"
        )
    each = [i // (num_images // num_clips) for i in range(num_images)]
    if not guided:
        return each, [True] * num_images
    return each + each, [False] * num_images + [True] * num_images


def select_audio_rows(audio: AudioStates, rows: list[int], has_audio: list[bool]) -> AudioStates:
    """Select rows of keys and values.

    Args:
        audio: Keys and values by layer.
        rows: Indices of the rows.
        has_audio: Whether each selected row has audio.

    Returns:
        Keys and values with one row per index.
    """
    if not audio:
        return {}
    first = next(iter(audio.values()))[0].keys
    index = torch.tensor(rows, device=first.device)
    mask = torch.tensor(has_audio, device=first.device)
    return {
        name: [entry.select_rows(index, mask) for entry in key_values]
        for name, key_values in audio.items()
    }


def merge_audio(parts: list[AudioStates]) -> AudioStates:
    """Merge keys and values of several adapters.

    Args:
        parts: Keys and values by layer, one mapping per adapter.

    Returns:
        One mapping with all of them.
    """
    merged: AudioStates = {}
    for audio in parts:
        for name, key_values in audio.items():
            merged.setdefault(name, []).extend(key_values)
    return merged


def map_tensors(given: Any, batch_size: int, change: Callable[[torch.Tensor], Any]) -> Any:
    """Apply a function to all tensors with one row per image in nested arguments of a UNet.

    Args:
        given: Tensor, mapping, list, tuple or any other value, which is returned unchanged.
        batch_size: Number of rows of the tensors to change.
        change: Function of a tensor.

    Returns:
        The arguments with the tensors replaced.
    """
    if isinstance(given, torch.Tensor):
        return change(given) if given.ndim and len(given) == batch_size else given
    if isinstance(given, dict):
        return {k: map_tensors(v, batch_size, change) for k, v in given.items()}
    if isinstance(given, (list, tuple)):
        return type(given)(map_tensors(v, batch_size, change) for v in given)
    return given


def duplicate_conditional(rows: torch.Tensor, guided: bool) -> torch.Tensor:
    """Append a copy of the conditional rows, which are denoised without and with audio.

    Args:
        rows: Batch of any shape.
        guided: Whether the first half of the batch is unconditional.

    Returns:
        The rows, followed by the copy.
    """
    conditional = rows[len(rows) // 2 :] if guided else rows
    return torch.cat([rows, conditional])


def combine_guidance(
    noise_pred: torch.Tensor, guided: bool, text_guidance_scale: float, audio_guidance_scale: float
) -> torch.Tensor:
    """Combine the UNet's output for `duplicate_conditional` rows into the one the pipeline expects.

    The pipeline computes u + g * (c - u), with u unconditional and g the guidance scale of the
    text. With c = t + a / g * (s - t), t for text only and s for text and audio, that is

        u + g * (t - u) + a * (s - t),

    as InstructPix2Pix guides text and image separately (Brooks et al. 2023, arXiv 2211.09800).

    Args:
        noise_pred: Output of the UNet.
        guided: Whether the batch has unconditional rows.
        text_guidance_scale: Guidance scale g of the text.
        audio_guidance_scale: Guidance scale a of the audio.

    Returns:
        Output without the duplicated rows.
    """
    if not guided:
        text, audio = noise_pred.chunk(2)
        return text + audio_guidance_scale * (audio - text)
    unconditional, text, audio = noise_pred.chunk(3)
    return torch.cat(
        [unconditional, text + audio_guidance_scale / text_guidance_scale * (audio - text)]
    )
