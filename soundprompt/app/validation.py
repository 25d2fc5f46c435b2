"""Validation of generation requests, before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffuse.models.levels import LEVELS
from diffuse.pipelines.composition import RELATIONS
from soundprompt.app.arguments import AppArguments
from soundprompt.app.models import NO_ADAPTER, ModelChoice

RELATION_CHOICES = ("auto", *RELATIONS, "none")  # how prompt and audio are combined
MAX_SCALE, MAX_GUIDANCE, MAX_SEED = 2.0, 15.0, 2**32 - 1


class InvalidRequestError(ValueError):
    """A value of a request is invalid; the message states the valid values."""


@dataclass(frozen=True)
class GenerationRequest:
    """A validated generation request."""

    prompt: str
    negative_prompt: str
    audio_scale: float
    level_scales: dict[str, float]
    guidance_scale: float
    num_inference_steps: int
    seed: int
    num_images: int
    relation: str
    models: ModelChoice

    @property
    def pipeline_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of `SoundPipeline`, without the audio."""
        has_adapter = self.models.adapter != NO_ADAPTER
        return {
            "prompt": self.prompt or None,
            "negative_prompt": self.negative_prompt or None,
            "audio_scale": self.audio_scale,
            "guidance_scale": self.guidance_scale,
            "num_inference_steps": self.num_inference_steps,
            "seed": self.seed,
            "num_images": self.num_images,
            "relation": self.relation,
            "level_scales": self.level_scales if has_adapter else None,
        }


def validate_request(given: dict[str, Any], options: AppArguments) -> GenerationRequest:
    """Validate the values that the page or an API client sent.

    Args:
        given: Values by the names of the fields; None selects the default.
        options: Options of the app, for the limits.

    Raises:
        InvalidRequestError: A value is not a number or out of range, a prompt is too long, or a
            level scale is changed without an adapter.
    """
    kinds = vars(ModelChoice()).items()
    models = ModelChoice(
        *(str(given.get(kind) or "").strip() or default for kind, default in kinds)
    )
    scale = {
        name: _number(name, given.get(name), 1.0, 0, MAX_SCALE) for name in ("audio_scale", *LEVELS)
    }
    levels = {name: scale[name] for name in LEVELS}
    if models.adapter == NO_ADAPTER and set(levels.values()) != {1.0}:
        raise InvalidRequestError(
            "The scales of foreground, background and ambience require an adapter: select one "
            "under Models, or leave all three at 1."
        )
    return GenerationRequest(
        prompt=_text("prompt", given.get("prompt"), options),
        negative_prompt=_text("negative prompt", given.get("negative_prompt"), options),
        audio_scale=scale["audio_scale"],
        level_scales=levels,
        guidance_scale=_number("guidance_scale", given.get("guidance_scale"), 5.0, 1, MAX_GUIDANCE),
        num_inference_steps=_integer(
            "number of steps", given.get("num_inference_steps"), 20, 1, options.max_inference_steps
        ),
        seed=_integer("seed", given.get("seed"), 0, 0, MAX_SEED),
        num_images=_integer("number of images", given.get("num_images"), 1, 1, options.max_images),
        relation=_relation(given.get("relation")),
        models=models,
    )


def _relation(value: Any) -> str:
    name = str(value or "auto")
    if name not in RELATION_CHOICES:
        raise InvalidRequestError(
            f"There is no relation {name!r}: select one of {', '.join(RELATION_CHOICES)}."
        )
    return name


def _text(name: str, value: Any, options: AppArguments) -> str:
    text = " ".join(str(value or "").split())
    if not text.isascii() and text != text.encode(errors="ignore").decode():
        raise InvalidRequestError(
            f"The {name} contains half of a character (a lone surrogate): delete it."
        )
    if len(text) > options.max_prompt_length:
        raise InvalidRequestError(
            f"The {name} has {len(text)} characters, more than the limit of "
            f"{options.max_prompt_length}: shorten it."
        )
    return text


def _number(name: str, value: Any, default: float, low: float, high: float) -> float:
    try:
        number = default if value is None else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not low <= number <= high:  # also rejects NaN
        title = name.replace("_", " ")
        ends = [int(end) if end == int(end) else end for end in (low, high)]
        raise InvalidRequestError(
            f"The {title} is {value!r}: give a number from {ends[0]} to {ends[1]}."
        )
    return number


def _integer(name: str, value: Any, default: int, low: int, high: int) -> int:
    number = _number(name, value, default, low, high)
    if number != int(number):
        raise InvalidRequestError(f"The {name} is {value!r}: give an integer from {low} to {high}.")
    return int(number)
