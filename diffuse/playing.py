"""How a playing sound meets a UNet's batch: repeated for its pictures, silent where guided from.

A stock pipeline knows nothing of sound. It calls the UNet with one row a picture or, for
classifier-free guidance, the unconditional rows first and then the same number of conditional
ones; the sound is heard by the conditional ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diffuse.attention import Audio


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
