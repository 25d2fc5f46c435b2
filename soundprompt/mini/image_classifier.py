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

from soundprompt.mini.world import CLASSES, COLORS, SCENES, View

UNCLEAR = "unclear"
NOTHING = "nothing"
CLASSES_BY_TASK: dict[str, tuple[str, ...]] = {
    "near": (*CLASSES, UNCLEAR),
    "far": (*CLASSES, NOTHING, UNCLEAR),
    "scene": SCENES,
    "colour": (*COLORS, NOTHING),
}
WEIGHTS = Path(__file__).parent / "weights" / "image_classifier"


@dataclass(frozen=True)
class MiniImagePrediction:
    """What the judge sees in one picture; near and far may be "unclear"."""

    near: str
    far: str | None
    scene: str
    color: str | None

    def shows_classes(self, near: str, far: str | None = None) -> bool:
        """Whether the picture shows this near thing, and this far thing or none."""
        return self.near == near and self.far == far

    @property
    def label(self) -> str:
        """What is seen, as a `View` labels it."""
        return self.near if self.far is None else f"{self.near} + {self.far}"

    def matches_view(self, view: View) -> bool:
        """Whether near thing, far thing and time of day are all right."""
        return self.shows_classes(view.near, view.far) and self.scene == view.scene


class MiniImageClassifier(PreTrainedModel):
    """A ResNet with one linear answer sheet a question (the keys of ANSWERS)."""

    config_class = ResNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        self.resnet = ResNetModel(config)
        width = config.hidden_sizes[-1]
        self.labels = nn.ModuleDict(
            {
                question: nn.Linear(width, len(options))
                for question, options in CLASSES_BY_TASK.items()
            }
        )
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits by question, (B, number of answers), of pictures (B, 3, 64, 64) in [-1, 1]."""
        pooled = self.resnet(pixel_values).pooler_output.flatten(1)
        return {question: head(pooled) for question, head in self.labels.items()}

    @torch.no_grad()
    def classify(
        self, images: Sequence[Image.Image], batch_size: int = 64
    ) -> list[MiniImagePrediction]:
        """What the judge sees in each picture, of any size."""
        predictions: list[MiniImagePrediction] = []
        for start in range(0, len(images), batch_size):
            pixels = _pixels(images[start : start + batch_size]).to(self.device)
            best = {q: logits.argmax(1).tolist() for q, logits in self(pixels).items()}
            predictions += [
                _prediction({q: CLASSES_BY_TASK[q][best[q][i]] for q in CLASSES_BY_TASK})
                for i in range(len(pixels))
            ]
        return predictions

    def supports(self, label: str) -> bool:
        """Whether pictures of this label can be judged: one thing, or one with another behind."""
        return set(label.split(" + ")) <= set(CLASSES) and label.count(" + ") < 2

    def is_correct(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """Whether each picture shows just what its label ("dog", or "dog + rain") says."""
        return [v.label == label for v, label in zip(self.classify(images), labels, strict=True)]


def _pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    small = [np.asarray(i.convert("RGB").resize((64, 64), Image.Resampling.BOX)) for i in images]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _prediction(labels: dict[str, str]) -> MiniImagePrediction:
    far, color = labels["far"], labels["colour"]
    return MiniImagePrediction(
        near=labels["near"],
        far=None if far == NOTHING else far,
        scene=labels["scene"],
        color=None if color == NOTHING else color,
    )


@lru_cache(maxsize=1)
def load_image_classifier() -> MiniImageClassifier:
    """The committed judge, loaded once."""
    model: MiniImageClassifier = MiniImageClassifier.from_pretrained(WEIGHTS, dtype=torch.float32)
    return model.eval()
