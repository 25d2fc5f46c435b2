"""The options of the alignment's loss: which terms it has, and what belongs to each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

DIRECTIONS = ("both", "audio_to_text", "text_to_audio")
# What an option acts on: one of these weights must not be 0, or the option does nothing.
CONTRASTS = ("info_nce_weight", "sigmoid_weight", "margin_weight")
ACTS_ON = {
    "temperature": ("info_nce_weight",),
    "info_nce_direction": ("info_nce_weight",),
    "sigmoid_temperature": ("sigmoid_weight",),
    "sigmoid_bias": ("sigmoid_weight",),
    "learn_temperature": ("info_nce_weight", "sigmoid_weight"),
    "margin": ("margin_weight",),
    "paraphrase_threshold": CONTRASTS,
    "padding_weight": (*CONTRASTS, "mse_weight"),
}


@dataclass
class LossArguments:
    """What the alignment minimises: a weighted sum."""

    info_nce_weight: float = field(default=1.0, metadata={"help": "sequence InfoNCE"})
    mse_weight: float = field(default=1.0, metadata={"help": "mean squared error"})
    sigmoid_weight: float = field(default=0.0, metadata={"help": "SigLIP's loss, by position"})
    margin_weight: float = field(default=0.0, metadata={"help": "cosine embedding loss"})
    distillation_weight: float = field(
        default=0.0, metadata={"help": "keys and values in the base's UNet, as the text's"}
    )
    temperature: float = field(default=0.15, metadata={"help": "of the InfoNCE"})
    info_nce_direction: str = field(
        default="both", metadata={"help": "both, audio_to_text (as audio2img) or text_to_audio"}
    )
    sigmoid_temperature: float = field(default=0.1, metadata={"help": "of the sigmoid loss"})
    sigmoid_bias: float = field(default=-10.0, metadata={"help": "of the sigmoid loss"})
    learn_temperature: bool = field(
        default=False, metadata={"help": "train temperatures and the sigmoid's bias from there on"}
    )
    margin: float = field(default=0.2, metadata={"help": "cosine that unrelated pairs may have"})
    paraphrase_threshold: float = field(
        default=1.0,
        metadata={"help": "captions whose embeds' cosine exceeds it are partly positives; 1: none"},
    )
    padding_weight: float = field(
        default=1.0,
        metadata={"help": "of a position after the caption's end, beside 1 for a word's; above 0"},
    )
    target: str = field(
        default="label_mean",
        metadata={"help": "label_mean (over a label's captions) or caption (each row's own)"},
    )

    def __post_init__(self) -> None:
        if self.target not in ("label_mean", "caption"):
            raise ValueError(f"--target is label_mean or caption, not {self.target!r}")
        if self.info_nce_direction not in DIRECTIONS:
            ways = ", ".join(DIRECTIONS)
            raise ValueError(f"--info_nce_direction is one of {ways}: {self.info_nce_direction!r}")
        self._check_weights()
        self._check_ranges()

    @property
    def contrasts(self) -> bool:
        """Whether any term compares pairs of rows."""
        return any(getattr(self, name) for name in CONTRASTS)

    def _check_weights(self) -> None:
        weights = {name: value for name, value in vars(self).items() if name in _WEIGHTS}
        for name, value in weights.items():
            if value < 0:
                raise ValueError(f"--{name} is 0 or more, not {value}")
        if not any(weights.values()):
            raise ValueError("every loss has weight 0: nothing would be learned")
        for option, names in ACTS_ON.items():
            changed = getattr(self, option) != _defaults()[option]
            if changed and not any(weights[name] for name in names):
                needed = " or ".join(f"--{name}" for name in names)
                raise ValueError(f"--{option} does nothing here: it needs {needed} above 0")

    def _check_ranges(self) -> None:
        for name in ("temperature", "sigmoid_temperature", "padding_weight"):
            if getattr(self, name) <= 0:
                hint = " (padding is part of the prompt)" if name == "padding_weight" else ""
                raise ValueError(f"--{name} must be above 0, not {getattr(self, name)}{hint}")
        if not 0 <= self.paraphrase_threshold <= 1:
            given = self.paraphrase_threshold
            raise ValueError(f"--paraphrase_threshold is a cosine from 0 to 1, not {given}")
        if not -1 <= self.margin < 1:
            raise ValueError(f"--margin is a cosine, -1 to below 1, not {self.margin}")


_WEIGHTS = (*CONTRASTS, "mse_weight", "distillation_weight")


def _defaults() -> dict[str, Any]:
    return {option.name: option.default for option in fields(LossArguments)}
