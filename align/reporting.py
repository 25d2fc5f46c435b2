"""Where a training is followed: what --report_to names must be installed before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

# What the extra `track` of this package installs.
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",),
            "trackio": ("trackio",)}  # fmt: skip


def check_reporters(names: Sequence[str]) -> None:
    """Refuses to report to what is not installed.

    Raises:
        ValueError: a package is missing.
    """
    for name in names:
        packages = PACKAGES.get(name, ())
        if packages and not any(find_spec(package) for package in packages):
            raise ValueError(
                f"--report_to {name} needs a package that is not installed: pip install {name}"
            )
