"""The player: hooks on a UNet through which any stock pipeline's calls hear what is playing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from diffuse.models.adapter import SoundAdapter
from diffuse.models.attention_processor import CHANNEL, Audio
from diffuse.models.levels import places
from diffuse.models.lora import check_number

# What is heard together: how much each counts, and its level tokens (B, J, D).
Parts = list[tuple[float, torch.Tensor]]


@dataclass(frozen=True)
class Volume:
    """How loud an adapter is.

    Attributes:
        scale: of the whole sound; 0 is the base.
        levels: scales of single levels by name, times the whole's.
        steps: the share of the noise schedule, from its noisy start, in which it is heard.
        weight: of the adapter among several.
    """

    scale: float = 1.0
    levels: dict[str, float] = field(default_factory=dict)
    steps: tuple[float, float] = (0.0, 1.0)
    weight: float = 1.0

    def __post_init__(self) -> None:
        for level, scale in self.levels.items():
            places(level)
            check_number(f"the scale of {level}", scale)
        check_number("the audio scale", self.scale)
        check_number("the weight of an adapter", self.weight)
        if not 0 <= self.steps[0] < self.steps[1] <= 1:
            raise ValueError(
                f"steps are a range within 0 (noise) and 1 (picture), not {self.steps}"
            )

    def at(self, share: float) -> float:
        """The factor when this share of the noise schedule is done."""
        begin, end = self.steps
        return self.scale * self.weight if begin <= share < end or end == 1 <= share else 0.0


@dataclass
class Player:
    """What plays on a UNet.

    Attributes:
        pipeline: whose calls tell whether they are guided, or None.
        adapters: by name, as the attachment holds them.
        volumes: by the adapters' names.
        audio_guidance: of the sound apart from the text; None guides by both together.
    """

    pipeline: Any
    adapters: dict[str, SoundAdapter]
    volumes: dict[str, Volume] = field(default_factory=dict)
    audio_guidance: float | None = None
    _parts: dict[str, Parts] = field(default_factory=dict)
    _guided: bool | None = None
    _cache: dict[Any, Audio] = field(default_factory=dict)
    _tripled: tuple[bool, float] | None = None

    def hook(self, unet: Any) -> list[Any]:
        """Puts the hooks on a UNet; each has a `remove`."""
        return [
            unet.register_forward_pre_hook(self._before, with_kwargs=True),
            unet.register_forward_hook(self._after),
        ]

    def play(self, parts: dict[str, Parts], guided: bool | None) -> None:
        """Plays what the adapters, by name, hear together; {} is silence."""
        self._parts, self._guided = parts, guided
        self.forget()

    def guide(self, audio_guidance: float | None) -> None:
        """Guides by the sound apart from the text; None guides by both together."""
        check_number("the audio guidance", 0.0 if audio_guidance is None else audio_guidance)
        self.audio_guidance = audio_guidance
        self.forget()

    def forget(self) -> None:
        """Keys and values are computed anew at the next step."""
        self._cache = {}

    def _before(
        self, unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Any] | None:
        self._tripled = None
        own = kwargs.get("cross_attention_kwargs") or {}
        if not self._parts or CHANNEL in own:
            return None
        sample = args[0] if args else kwargs["sample"]
        time = args[1] if len(args) > 1 else kwargs["timestep"]
        loud = {n: f for n, f in self._factors(time).items() if f and n in self._parts}
        if not loud:
            return None
        batch, guided = len(sample), self._is_guided(len(sample))
        if self.audio_guidance is not None:
            self._tripled = (guided, self._text_guidance(guided))
            args, kwargs = each_tensor(
                (args, kwargs), batch, lambda rows: twice_conditional(rows, guided)
            )
        kwargs["cross_attention_kwargs"] = {**own, CHANNEL: self._audio(batch, guided, loud, unet)}
        return args, kwargs

    def _after(self, unet: Any, args: Any, answer: Any) -> Any:
        if self._tripled is None:
            return None
        (guided, text), sound = self._tripled, self.audio_guidance
        assert sound is not None
        drawn = without_twice(answer[0], guided, text, sound)
        return (drawn,) if isinstance(answer, tuple) else type(answer)(sample=drawn)

    def _factors(self, time: Any) -> dict[str, float]:
        share = 0.0
        if any(volume.steps != (0.0, 1.0) for volume in self.volumes.values()):
            scheduler = getattr(self.pipeline, "scheduler", None)
            last = scheduler.config.num_train_timesteps if scheduler is not None else 1000
            now = float(time.flatten()[0]) if isinstance(time, torch.Tensor) else float(time)
            share = 1 - now / last
        return {name: volume.at(share) for name, volume in self.volumes.items()}

    def _is_guided(self, batch_size: int) -> bool:
        if self._guided is not None:
            return self._guided
        told = getattr(self.pipeline, "do_classifier_free_guidance", None)
        if told is not None:
            return bool(told)
        if batch_size == self._sounds():
            return False  # a row a sound: there is none to guide from
        raise ValueError(
            "the UNet's batch is larger than the sounds that play, and no pipeline tells whether "
            "it is guided: attach to the pipeline, or say play(..., guided=True or False)"
        )

    def _text_guidance(self, guided: bool) -> float:
        if not guided:
            return 1.0
        found = getattr(self.pipeline, "guidance_scale", None)
        if found is None:
            raise ValueError("audio_guidance needs the pipeline: attach to it, not to its UNet")
        return float(found)

    @torch.no_grad()
    def _audio(self, batch: int, guided: bool, loud: dict[str, float], unet: Any) -> Audio:
        kind = (batch, guided, tuple(loud.items()), self.audio_guidance is not None, unet.dtype)
        if kind not in self._cache:
            rows, heard = audio_rows(batch, self._sounds(), guided)
            if self.audio_guidance is not None:  # the conditional rows once more, silent at first
                count = batch // 2 if guided else batch
                rows, heard = rows + rows[-count:], [False] * batch + [True] * count
            audio = merged([self._listen(name, factor, unet) for name, factor in loud.items()])
            self._cache[kind] = arranged(audio, rows, heard)
        return self._cache[kind]

    def _sounds(self) -> int:
        return len(next(iter(self._parts.values()))[0][1])

    def _listen(self, name: str, factor: float, unet: Any) -> Audio:
        adapter, levels = self.adapters[name], self.volumes[name].levels
        heard = [
            {
                layer: [sound.scaled(factor * weight).to(unet.device, unet.dtype)]
                for layer, (sound,) in adapter.listen(tokens, scales=levels).items()
            }
            for weight, tokens in self._parts[name]
        ]
        return merged(heard)


def audio_rows(batch_size: int, sounds: int, guided: bool) -> tuple[list[int], list[bool]]:
    """For every row of a UNet's batch, which sound it hears, and whether it hears at all.

    Args:
        batch_size: rows of the UNet's batch.
        sounds: how many are playing; each has one or several pictures that stand together, as
            diffusers orders num_images_per_prompt.
        guided: the first half is unconditional.

    Raises:
        ValueError: the pictures cannot be shared evenly among the sounds.
    """
    pictures = batch_size // 2 if guided else batch_size
    if pictures % sounds or (guided and batch_size % 2):
        raise ValueError(
            f"{sounds} sounds are playing and the UNet draws {pictures} pictures: "
            "give one sound, one a picture, or a number that divides the pictures"
        )
    each = [i // (pictures // sounds) for i in range(pictures)]
    if not guided:
        return each, [True] * pictures
    return each + each, [False] * pictures + [True] * pictures


def arranged(audio: Audio, rows: list[int], heard: list[bool]) -> Audio:
    """The sounds of a batch's rows."""
    if not audio:
        return {}
    first = next(iter(audio.values()))[0].keys
    index = torch.tensor(rows, device=first.device)
    audible = torch.tensor(heard, device=first.device)
    return {
        name: [sound.rows(index, audible) for sound in sounds] for name, sounds in audio.items()
    }


def merged(parts: list[Audio]) -> Audio:
    """The sounds of several adapters together."""
    together: Audio = {}
    for audio in parts:
        for name, sounds in audio.items():
            together.setdefault(name, []).extend(sounds)
    return together


def each_tensor(given: Any, batch_size: int, change: Callable[[torch.Tensor], Any]) -> Any:
    """A UNet's arguments with every tensor of one row a picture changed, however deep it stands."""
    if isinstance(given, torch.Tensor):
        return change(given) if given.ndim and len(given) == batch_size else given
    if isinstance(given, dict):
        return {k: each_tensor(v, batch_size, change) for k, v in given.items()}
    if isinstance(given, (list, tuple)):
        return type(given)(each_tensor(v, batch_size, change) for v in given)
    return given


def twice_conditional(rows: torch.Tensor, guided: bool) -> torch.Tensor:
    """A batch with its conditional rows once more: they are drawn without and with the sound."""
    conditional = rows[len(rows) // 2 :] if guided else rows
    return torch.cat([rows, conditional])


def without_twice(
    drawn: torch.Tensor, guided: bool, text_guidance: float, audio_guidance: float
) -> torch.Tensor:
    """The UNet's answer to `twice_conditional` rows as the pipeline expects it.

    The pipeline will compute u + g * (c - u), u unconditional and g the text's guidance. With
    c = t + a / g * (s - t), t text alone and s text and sound, that is

        u + g * (t - u) + a * (s - t),

    as InstructPix2Pix guides by text and picture apart (Brooks et al. 2023, arXiv 2211.09800).
    """
    if not guided:
        text, sound = drawn.chunk(2)
        return text + audio_guidance * (sound - text)
    nothing, text, sound = drawn.chunk(3)
    return torch.cat([nothing, text + audio_guidance / text_guidance * (sound - text)])
