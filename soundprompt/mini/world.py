"""What the miniature's world holds: ten things that sound, three times of day, six colours.

Sounds, pictures and captions are all drawn from a `View`, so that what is heard, seen and said
of it is known exactly.
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

# The colours that a thing may have; what is missing here has only its own.
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
    """One moment: a thing near, perhaps another far away, a time of day, the near one's colour."""

    near: str
    far: str | None
    scene: str
    color: str | None

    @property
    def label(self) -> str:
        """What the sound determines of the view: the near thing and the far one."""
        return self.near if self.far is None else f"{self.near} + {self.far}"


def random_view(
    rng: np.random.Generator, *, near: str | None = None, far_prob: float = 0.5
) -> View:
    """A view drawn evenly over classes, scenes and colours.

    Args:
        rng: source of all choices.
        near: the near thing, if it is given.
        far_share: probability that a second thing stands in the background.
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
