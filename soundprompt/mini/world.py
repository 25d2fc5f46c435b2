"""The synthetic world of the `mini` models: ten sound classes, three times of day, six colors.

Sounds, images and captions are generated from a `View`, which provides exact ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The ten classes of ESC-10 (Piczak 2015, "ESC: Dataset for Environmental Sound Classification").
CLASSES = (
    "dog",
    "rain",
    "sea waves",
    "crying baby",
    "clock tick",
    "sneezing",
    "helicopter",
    "chainsaw",
    "rooster",
    "crackling fire",
)
SCENES = ("day", "dusk", "night")
COLORS = ("red", "yellow", "green", "blue", "white", "brown")

# Colors of the classes; missing classes have a fixed color.
CLASS_COLORS = {
    "dog": ("brown", "white", "yellow"),
    "crying baby": ("yellow", "blue", "green"),
    "clock tick": ("red", "blue", "green"),
    "sneezing": ("red", "blue", "green"),
    "helicopter": ("red", "blue", "yellow"),
    "chainsaw": ("red", "blue", "yellow"),
    "rooster": ("brown", "white", "red"),
}


@dataclass(frozen=True)
class View:
    """Ground truth of a clip and its image.

    Attributes:
        near: Class in the foreground.
        far: Class in the background, if any.
        scene: Time of day.
        color: Color of the foreground, if its class has several.
    """

    near: str
    far: str | None
    scene: str
    color: str | None

    @property
    def label(self) -> str:
        """Label of the audible classes, such as "dog" or "dog + rain"."""
        return self.near if self.far is None else f"{self.near} + {self.far}"


def random_view(
    rng: np.random.Generator, *, near: str | None = None, far_prob: float = 0.5
) -> View:
    """Sample a view uniformly over classes, scenes and colors.

    Args:
        rng: Random generator.
        near: Class in the foreground. Sampled by default.
        far_prob: Probability of a second class in the background.
    """
    near = near or CLASSES[rng.integers(len(CLASSES))]
    far = None
    if rng.random() < far_prob:
        others = [name for name in CLASSES if name != near]
        far = others[rng.integers(len(others))]
    colors = CLASS_COLORS.get(near)
    return View(
        near=near,
        far=far,
        scene=SCENES[rng.integers(len(SCENES))],
        color=colors[rng.integers(len(colors))] if colors else None,
    )
