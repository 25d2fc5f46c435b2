"""Where a training is followed: what --report_to names must be installed before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

# What the extra `track` of this package installs.
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",),
            "trackio": ("trackio",)}  # fmt: skip


def known() -> list[str]:
    """What the Trainer can report to."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return sorted(INTEGRATION_TO_CALLBACK)


def check_reporters(names: Sequence[str]) -> None:
    """Refuses to report to what does not exist or is not installed.

    Raises:
        ValueError: there is no such reporter, or its package is missing.
    """
    for name in names:
        if name not in (*known(), "none"):
            raise ValueError(
                f"--report_to {name}: there is no such reporter; there are: {', '.join(known())}"
            )
        packages = PACKAGES.get(name, ())
        if packages and not any(find_spec(package) for package in packages):
            raise ValueError(
                f"--report_to {name} needs a package that is not installed: pip install {name}"
            )
