"""The judge: a small classifier that says what a picture of the miniature's world shows.

It was trained on drawn pictures alone and may answer "unclear", which counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel, ResNetConfig, ResNetModel

from soundprompt.mini.world import CLASSES, COLOURS, SCENES, View

UNCLEAR = "unclear"
NOTHING = "nothing"
ANSWERS: dict[str, tuple[str, ...]] = {
    "near": (*CLASSES, UNCLEAR),
    "far": (*CLASSES, NOTHING, UNCLEAR),
    "scene": SCENES,
    "colour": (*COLOURS, NOTHING),
}
WEIGHTS = Path(__file__).parent / "weights" / "image_classifier"


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in one picture; near and far may be "unclear"."""

    near: str
    far: str | None
    scene: str
    colour: str | None

    def shows(self, near: str, far: str | None = None) -> bool:
        """Whether the picture shows this near thing, and this far thing or none."""
        return self.near == near and self.far == far

    @property
    def label(self) -> str:
        """What is seen, as a `View` labels it."""
        return self.near if self.far is None else f"{self.near} + {self.far}"

    def fits(self, view: View) -> bool:
        """Whether near thing, far thing and time of day are all right."""
        return self.shows(view.near, view.far) and self.scene == view.scene


class Judge(PreTrainedModel):
    """A ResNet with one linear answer sheet a question (the keys of ANSWERS)."""

    config_class = ResNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        self.resnet = ResNetModel(config)
        width = config.hidden_sizes[-1]
        self.answers = nn.ModuleDict(
            {question: nn.Linear(width, len(options)) for question, options in ANSWERS.items()}
        )
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits by question, (B, number of answers), of pictures (B, 3, 64, 64) in [-1, 1]."""
        seen = self.resnet(pixel_values).pooler_output.flatten(1)
        return {question: sheet(seen) for question, sheet in self.answers.items()}

    @torch.no_grad()
    def look(self, images: Sequence[Image.Image], batch_size: int = 64) -> list[Verdict]:
        """What the judge sees in each picture, of any size."""
        verdicts: list[Verdict] = []
        for start in range(0, len(images), batch_size):
            pixels = _pixels(images[start : start + batch_size]).to(self.device)
            best = {q: logits.argmax(1).tolist() for q, logits in self(pixels).items()}
            verdicts += [
                _verdict({q: ANSWERS[q][best[q][i]] for q in ANSWERS}) for i in range(len(pixels))
            ]
        return verdicts

    def knows(self, label: str) -> bool:
        """Whether pictures of this label can be judged: one thing, or one with another behind."""
        return set(label.split(" + ")) <= set(CLASSES) and label.count(" + ") < 2

    def right(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """Whether each picture shows just what its label ("dog", or "dog + rain") says."""
        return [v.label == label for v, label in zip(self.look(images), labels, strict=True)]


def _pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    small = [np.asarray(i.convert("RGB").resize((64, 64), Image.Resampling.BOX)) for i in images]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _verdict(answers: dict[str, str]) -> Verdict:
    far, colour = answers["far"], answers["colour"]
    return Verdict(
        near=answers["near"],
        far=None if far == NOTHING else far,
        scene=answers["scene"],
        colour=None if colour == NOTHING else colour,
    )


@lru_cache(maxsize=1)
def judge() -> Judge:
    """The committed judge, loaded once."""
    model: Judge = Judge.from_pretrained(WEIGHTS, dtype=torch.float32)
    return model.eval()
