"""The player: hooks on a UNet through which any stock pipeline's calls hear what is playing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from diffuse.models.adapter import SoundAdapter
from diffuse.models.attention_processor import CROSS_ATTENTION_KWARG, AudioStates
from diffuse.models.levels import level_slice
from diffuse.models.lora import check_finite

# What is heard together: how much each counts, and its level tokens (B, J, D).
WeightedTokens = list[tuple[float, torch.Tensor]]


@dataclass(frozen=True)
class AdapterScale:
    """How loud an adapter is.

    Attributes:
        scale: of the whole sound; 0 is the base.
        levels: scales of single levels by name, times the whole's.
        steps: the share of the noise schedule, from its noisy start, in which it is heard.
        weight: of the adapter among several.
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
                f"steps are a range within 0 (noise) and 1 (picture), not {self.audio_interval}"
            )

    def at_progress(self, progress: float) -> float:
        """The factor when this share of the noise schedule is done."""
        start, end = self.audio_interval
        return self.scale * self.weight if start <= progress < end or end == 1 <= progress else 0.0


@dataclass
class AudioInjector:
    """What plays on a UNet.

    Attributes:
        pipeline: whose calls tell whether they are guided, or None.
        adapters: by name, as the attachment holds them.
        volumes: by the adapters' names.
        audio_guidance: of the sound apart from the text; None guides by both together.
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
        """Puts the hooks on a UNet; each has a `remove`."""
        return [
            unet.register_forward_pre_hook(self._pre_forward, with_kwargs=True),
            unet.register_forward_hook(self._post_forward),
        ]

    def set_audio(self, weighted_tokens: dict[str, WeightedTokens], guided: bool | None) -> None:
        """Plays what the adapters, by name, hear together; {} is silence."""
        self._weighted_tokens, self._guided = weighted_tokens, guided
        self.clear_cache()

    def set_audio_guidance_scale(self, audio_guidance_scale: float | None) -> None:
        """Guides by the sound apart from the text; None guides by both together."""
        check_finite(
            "the audio guidance", 0.0 if audio_guidance_scale is None else audio_guidance_scale
        )
        self.audio_guidance_scale = audio_guidance_scale
        self.clear_cache()

    def clear_cache(self) -> None:
        """Keys and values are computed anew at the next step."""
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
            return False  # a row a sound: there is none to guide from
        raise ValueError(
            "the UNet's batch is larger than the sounds that play, and no pipeline tells whether "
            "it is guided: attach to the pipeline, or say play(..., guided=True or False)"
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
            if (
                self.audio_guidance_scale is not None
            ):  # the conditional rows once more, silent at first
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
    """For every row of a UNet's batch, which sound it hears, and whether it hears at all.

    Args:
        batch_size: rows of the UNet's batch.
        sounds: how many are playing; each has one or several pictures that stand together, as
            diffusers orders num_images_per_prompt.
        guided: the first half is unconditional.

    Raises:
        ValueError: the pictures cannot be shared evenly among the sounds.
    """
    num_images = batch_size // 2 if guided else batch_size
    if num_images % num_clips or (guided and batch_size % 2):
        raise ValueError(
            f"{num_clips} sounds are playing and the UNet draws {num_images} pictures: "
            "give one sound, one a picture, or a number that divides the pictures"
        )
    each = [i // (num_images // num_clips) for i in range(num_images)]
    if not guided:
        return each, [True] * num_images
    return each + each, [False] * num_images + [True] * num_images


def select_audio_rows(audio: AudioStates, rows: list[int], has_audio: list[bool]) -> AudioStates:
    """The sounds of a batch's rows."""
    if not audio:
        return {}
    first = next(iter(audio.values()))[0].keys
    index = torch.tensor(rows, device=first.device)
    audible = torch.tensor(has_audio, device=first.device)
    return {
        name: [entry.select_rows(index, audible) for entry in key_values]
        for name, key_values in audio.items()
    }


def merge_audio(parts: list[AudioStates]) -> AudioStates:
    """The sounds of several adapters together."""
    together: AudioStates = {}
    for audio in parts:
        for name, key_values in audio.items():
            together.setdefault(name, []).extend(key_values)
    return together


def map_tensors(given: Any, batch_size: int, change: Callable[[torch.Tensor], Any]) -> Any:
    """A UNet's arguments with every tensor of one row a picture changed, however deep it stands."""
    if isinstance(given, torch.Tensor):
        return change(given) if given.ndim and len(given) == batch_size else given
    if isinstance(given, dict):
        return {k: map_tensors(v, batch_size, change) for k, v in given.items()}
    if isinstance(given, (list, tuple)):
        return type(given)(map_tensors(v, batch_size, change) for v in given)
    return given


def duplicate_conditional(rows: torch.Tensor, guided: bool) -> torch.Tensor:
    """A batch with its conditional rows once more: they are drawn without and with the sound."""
    conditional = rows[len(rows) // 2 :] if guided else rows
    return torch.cat([rows, conditional])


def combine_guidance(
    noise_pred: torch.Tensor, guided: bool, text_guidance_scale: float, audio_guidance_scale: float
) -> torch.Tensor:
    """The UNet's answer to `duplicate_conditional` rows as the pipeline expects it.

    The pipeline will compute u + g * (c - u), u unconditional and g the text's guidance. With
    c = t + a / g * (s - t), t text alone and s text and sound, that is

        u + g * (t - u) + a * (s - t),

    as InstructPix2Pix guides by text and picture apart (Brooks et al. 2023, arXiv 2211.09800).
    """
    if not guided:
        text, audio = noise_pred.chunk(2)
        return text + audio_guidance_scale * (audio - text)
    unconditional, text, audio = noise_pred.chunk(3)
    return torch.cat(
        [unconditional, text + audio_guidance_scale / text_guidance_scale * (audio - text)]
    )
