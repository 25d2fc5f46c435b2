"""Validation and plots of uploaded audio."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.audio.files import AudioError, AudioWarning
from align.audio.waveform import windows
from soundprompt.app.arguments import AppArguments

if TYPE_CHECKING:
    from PIL import Image


DISPLAY_RATE = 24_000  # Hz, of the plots; encoders resample to their own sampling rate
MEGABYTE = 1_000_000
MIN_AUDIO_S = 0.1  # shorter clips are recorded by accident
FLOOR_DB = -70.0  # relative to the loudest point; lower levels are black in the plot


@dataclass(frozen=True, eq=False)
class UploadedAudio:
    """Uploaded audio.

    Attributes:
        waveform: Mono float32 samples (N,) at `DISPLAY_RATE`.
        decode_warnings: Warnings from decoding, such as a truncated file. Empty if none.
    """

    waveform: np.ndarray
    decode_warnings: str = ""

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return len(self.waveform) / DISPLAY_RATE


def read_upload(path: str | None, options: AppArguments) -> UploadedAudio:
    """Read an uploaded audio file within the limits of the app.

    Args:
        path: Path of the uploaded or recorded file; None if there is none.
        options: Options of the app, for the limits.

    Raises:
        AudioError: There is no file, it is too large, too long or too short, or it cannot be
            decoded. The message does not contain the path.
    """
    if not path:
        raise AudioError("There is no audio: record, upload or select an example.")
    try:
        _check_size(path, options.max_upload_mb)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", AudioWarning)
            waveform = _read(path, options.max_audio_s)
    except AudioError as error:
        raise AudioError(_hide_path(str(error), path)) from None
    if len(waveform) < MIN_AUDIO_S * DISPLAY_RATE:
        raise AudioError(
            f"The audio is {len(waveform) / DISPLAY_RATE:.3f} s long, which is too short: record "
            f"or upload at least {MIN_AUDIO_S:g} s."
        )
    decode_warnings = [
        _hide_path(str(w.message), path) for w in caught if w.category is AudioWarning
    ]
    return UploadedAudio(waveform, " ".join(decode_warnings))


def _check_size(path: str, max_upload_mb: float) -> None:
    size = os.path.getsize(path) if os.path.exists(path) else 0
    if size > max_upload_mb * MEGABYTE:
        raise AudioError(
            f"The file has {size / MEGABYTE:.1f} MB, more than the limit of {max_upload_mb:g} MB: "
            "cut the audio, or save it as MP3 or OGG."
        )


def _read(path: str, max_audio_s: float) -> np.ndarray:
    parts, length = [], 0
    for window in windows(path, DISPLAY_RATE, 1.0):
        parts.append(window.samples)
        length += len(window.samples)
        if length > max_audio_s * DISPLAY_RATE:
            raise AudioError(
                f"The audio is longer than {max_audio_s:g} s, the limit of this app: cut it, for "
                "example with the scissors below its waveform."
            )
    return np.concatenate(parts)


def _hide_path(message: str, path: str) -> str:
    hidden = message.replace(repr(os.fspath(path)), "the audio").replace(path, "the audio")
    return hidden[:1].upper() + hidden[1:]


def spectrogram(audio: UploadedAudio, bins: int = 96) -> np.ndarray:
    """Compute a mel spectrogram.

    Args:
        audio: Uploaded audio.
        bins: Number of mel bins.

    Returns:
        Power in dB relative to the loudest point, (bins, T) in [FLOOR_DB, 0].
    """
    from scipy.signal import ShortTimeFFT
    from transformers.audio_utils import mel_filter_bank

    size, hop = 1024, max(256, len(audio.waveform) // 1000)
    padded = np.pad(audio.waveform, (0, max(0, size - len(audio.waveform))))
    power = ShortTimeFFT(np.hanning(size), hop, DISPLAY_RATE).spectrogram(padded)
    bank = mel_filter_bank(size // 2 + 1, bins, 40.0, DISPLAY_RATE / 2, DISPLAY_RATE)
    bands = bank.T @ power
    return np.asarray(10 * np.log10(np.maximum(bands / max(bands.max(), 1e-20), 1e-7)))


def plot_audio(audio: UploadedAudio) -> Image.Image:
    """Plot the waveform and the spectrogram on one time axis.

    The plot has its own background, so it is readable in light and dark mode.

    Args:
        audio: Uploaded audio.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(7.2, 2.3), dpi=125, layout="constrained", facecolor=PANEL)
    canvas = FigureCanvasAgg(figure)
    wave, bands = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    low, high, times = _envelope(audio)
    wave.fill_between(times, low, high, color=ACCENT, linewidth=0.6)
    wave.set(ylim=(-1.05, 1.05), yticks=[], ylabel="level")
    levels = spectrogram(audio)
    bands.imshow(
        levels, origin="lower", aspect="auto", cmap="magma", vmin=FLOOR_DB, vmax=0,
        extent=(0, audio.duration_s, 0, len(levels)),
    )  # fmt: skip
    bands.set(xlabel="seconds", ylabel="low → high", yticks=[], xlim=(0, audio.duration_s))
    for axes in (wave, bands):
        axes.set_facecolor(PANEL)
        axes.tick_params(colors=INK, labelsize=9)
        axes.xaxis.label.set(color=INK, fontsize=9)
        axes.yaxis.label.set(color=INK, fontsize=9)
        axes.spines[:].set_visible(False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


PANEL, INK, ACCENT = "#14141f", "#d5d5e3", "#f59e6c"


def _envelope(
    audio: UploadedAudio, columns: int = 900
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute minimum, maximum and start time of at most `columns` consecutive segments."""
    x = audio.waveform / max(float(np.abs(audio.waveform).max()), 1e-9)
    edges = np.linspace(0, len(x), min(columns, len(x)) + 1).astype(int)[:-1]
    return np.minimum.reduceat(x, edges), np.maximum.reduceat(x, edges), edges / DISPLAY_RATE
