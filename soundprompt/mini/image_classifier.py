"""Image classifier of the `mini` models.

It was trained on rendered images only. It may predict "unclear", which counts as wrong.
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
# The names of the tasks are part of the parameter names in the weights.
CLASSES_BY_TASK: dict[str, tuple[str, ...]] = {
    "near": (*CLASSES, UNCLEAR),
    "far": (*CLASSES, NOTHING, UNCLEAR),
    "scene": SCENES,
    "colour": (*COLORS, NOTHING),
}
WEIGHTS = Path(__file__).parent / "weights" / "image_classifier"


@dataclass(frozen=True)
class MiniImagePrediction:
    """Predicted classes of an image.

    Attributes:
        near: Class in the foreground, or "unclear".
        far: Class in the background, "unclear", or None.
        scene: Time of day.
        color: Color of the foreground, or None.
    """

    near: str
    far: str | None
    scene: str
    color: str | None

    def shows_classes(self, near: str, far: str | None = None) -> bool:
        """Whether the image shows these classes.

        Args:
            near: Class in the foreground.
            far: Class in the background; None for no background.
        """
        return self.near == near and self.far == far

    @property
    def label(self) -> str:
        """Label of the predicted classes, as of a `View`."""
        return self.near if self.far is None else f"{self.near} + {self.far}"

    def matches_view(self, view: View) -> bool:
        """Whether foreground, background and time of day are correct.

        Args:
            view: Ground truth.
        """
        return self.shows_classes(view.near, view.far) and self.scene == view.scene


class MiniImageClassifier(PreTrainedModel):
    """ResNet with a linear head for each task of `CLASSES_BY_TASK`."""

    config_class = ResNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        self.resnet = ResNetModel(config)
        width = config.hidden_sizes[-1]
        # Named like the parameters in the weights.
        self.answers = nn.ModuleDict(
            {task: nn.Linear(width, len(classes)) for task, classes in CLASSES_BY_TASK.items()}
        )
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the logits of each task.

        Args:
            pixel_values: Images (B, 3, 64, 64) in [-1, 1].

        Returns:
            Logits (B, number of classes) by task.
        """
        pooled = self.resnet(pixel_values).pooler_output.flatten(1)
        return {task: head(pooled) for task, head in self.answers.items()}

    @torch.no_grad()
    def classify(
        self, images: Sequence[Image.Image], batch_size: int = 64
    ) -> list[MiniImagePrediction]:
        """Classify images.

        Args:
            images: Images of any size.
            batch_size: Number of images per batch.
        """
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
        """Whether the classifier can predict a label.

        Args:
            label: Class, or foreground and background such as "dog + rain".
        """
        return set(label.split(" + ")) <= set(CLASSES) and label.count(" + ") < 2

    def is_correct(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """Whether the predicted label of each image is correct.

        Args:
            images: Images of any size.
            labels: Expected labels, such as "dog" or "dog + rain".
        """
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
    """Load the image classifier of the package once."""
    model: MiniImageClassifier = MiniImageClassifier.from_pretrained(WEIGHTS, dtype=torch.float32)
    return model.eval()
