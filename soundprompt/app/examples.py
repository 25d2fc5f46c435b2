"""Example clips of the app, synthesized when it starts."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

# Class of a synthetic clip and its seed, chosen so that the class is easy to recognize.
EXAMPLES = (
    ("dog", 3),
    ("rain", 1),
    ("sea waves", 2),
    ("rooster", 4),
    ("crackling fire", 5),
    ("helicopter", 1),
    ("clock tick", 2),
    ("crying baby", 1),
)


@lru_cache(maxsize=1)
def example_audio() -> dict[str, str]:
    """Write the example clips to a temporary folder that is deleted with the process.

    Returns:
        Path of the WAV file of each class.
    """
    import numpy as np
    import soundfile

    from soundprompt.mini.sounds import SAMPLE_RATE, recording

    folder = _folder()
    found = {}
    for label, seed in EXAMPLES:
        path = Path(folder.name) / f"{label.replace(' ', '-')}.wav"
        soundfile.write(path, recording(label, None, np.random.default_rng(seed)), SAMPLE_RATE)
        found[label] = str(path)
    return found


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="soundprompt-examples-")
