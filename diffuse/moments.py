"""Moments: a recording cut into overlapping stretches, one a frame of a film."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from align import audio


@dataclass(frozen=True)
class Moments:
    """A recording in stretches around evenly spaced points of time.

    Attributes:
        waveform: the whole recording, float32 (N,).
        rate: its samples a second.
        stretches: one a frame, float32.
    """

    waveform: np.ndarray
    rate: int
    stretches: list[np.ndarray]

    @classmethod
    def of(cls, recording: Any, rate: int, fps: float, window_s: float) -> Moments:
        """As many moments as the recording's length has frames, at least one.

        Args:
            recording: anything that `align.audio.read` takes.
            rate: the encoder's samples a second.
            fps: frames a second.
            window_s: length of a stretch; longer than a frame, it makes the film smoother.

        Raises:
            AudioError: the recording cannot be read or has nothing to hear.
            ValueError: fps or window_s are not positive.
        """
        check_pace(fps, window_s)
        waveform = audio.read(recording, rate)
        count = max(1, round(len(waveform) / rate * fps))
        length = min(len(waveform), max(1, round(window_s * rate)))
        centres = (np.arange(count) + 0.5) / count * len(waveform)
        starts = np.clip(centres - length / 2, 0, len(waveform) - length).astype(int)
        return cls(waveform, rate, [waveform[s : s + length] for s in starts])

    def audible(self) -> list[bool]:
        """Whether there is anything to hear, by frame."""
        return [bool(np.abs(s).max(initial=0.0) >= audio.SILENCE) for s in self.stretches]

    def shown(self) -> list[int]:
        """For every frame, the frame whose moment it shows.

        A silent one shows what was heard last; before the first sound, what will be heard first.
        """
        there = np.flatnonzero(self.audible())
        before = np.maximum(np.searchsorted(there, np.arange(len(self.stretches)), "right") - 1, 0)
        return [int(i) for i in there[before]]


def check_pace(fps: float, window_s: float) -> None:
    """Refuses a film without frames, or frames that hear nothing.

    Raises:
        ValueError: frames a second or the seconds they hear are not positive.
    """
    if not (0 < fps < math.inf and 0 < window_s < math.inf):
        raise ValueError(f"frames a second and windows are positive, not {fps} and {window_s}")
