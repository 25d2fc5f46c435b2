"""Similarity of synthetic and real clips: `python -m benchmarks.likeness --dataset FOLDER`.

Prints statistics of the levels of short frames in frequency bands as a Markdown table: deviation,
skewness, and correlation of the bands. Steady noise varies little and independently per band;
impacts raise all bands at once. Medians over the clips of a class, and the range of the middle 80%.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import stft
from scipy.stats import skew

from align.cli import CommandParser

RATE, FRAME_S = 16_000, 0.01
BANDS_HZ = ((250, 500), (2000, 4000), (4000, 7900))
# Resampling and padding affect the first and the last frames.
EDGE = 8
COLUMNS = (
    "deviation, 4-8 kHz (dB)", "skewness, 4-8 kHz", "correlation with 2-4 kHz",
    "correlation with 250-500 Hz",
)  # fmt: skip


def spectral_statistics(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the statistics of a waveform with a noise floor at -60 dB.

    Args:
        waveform: Samples (T,) at RATE.

    Returns:
        Statistics (4,), one per column of `COLUMNS`.
    """
    noisy = waveform / (np.abs(waveform).max() + 1e-9)
    noisy = noisy + 1e-3 * np.random.default_rng(0).standard_normal(len(noisy))
    f, _, spectra = stft(noisy, RATE, nperseg=round(FRAME_S * RATE), noverlap=0, boundary=None)
    power = np.abs(spectra[:, EDGE:-EDGE]) ** 2
    levels = [power[(f >= low) & (f < high)].sum(0) for low, high in BANDS_HZ]
    low, middle, top = (10 * np.log10(level + 1e-12) for level in levels)
    together = np.corrcoef([top, middle, low])[0]
    return np.array([top.std(), skew(top), together[1], together[2]])


def real(folder: Path, label: str) -> list[NDArray[np.float64]]:
    """Compute the statistics of the real clips of a class.

    Args:
        folder: Folder with metadata.csv.
        label: Class.
    """
    from align.audio.waveform import read

    with (folder / "metadata.csv").open(newline="") as file:
        names = [row["file_name"] for row in csv.DictReader(file) if row["label"] == label]
    return [spectral_statistics(read(folder / name, RATE)) for name in names]


def synthetic(label: str, count: int) -> list[NDArray[np.float64]]:
    """Compute the statistics of synthetic clips of a class.

    Args:
        label: Class.
        count: Number of clips.
    """
    import soxr

    from soundprompt.mini.sounds import SAMPLE_RATE, recording

    made = (recording(label, None, np.random.default_rng(seed)) for seed in range(count))
    return [spectral_statistics(soxr.resample(audio, SAMPLE_RATE, RATE)) for audio in made]


def row(label: str, kind: str, found: Iterable[NDArray[np.float64]]) -> str:
    """Format a row of the table.

    Args:
        label: Class.
        kind: Origin of the clips.
        found: Statistics of the clips.
    """
    quantiles = np.quantile(np.stack(list(found)), [0.5, 0.1, 0.9], axis=0).T
    cells = (f"{middle:.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in quantiles)
    return f"| {label} | {kind} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    from soundprompt.mini.world import CLASSES

    parser = CommandParser("python -m benchmarks.likeness", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="Folder with metadata.csv.")
    parser.add_argument(
        "--labels", nargs="+", choices=CLASSES, default=list(CLASSES), help="Classes to compare."
    )
    parser.add_argument(
        "--count", type=int, default=100, help="Number of synthetic clips per class."
    )
    options = parser.parse_args(arguments)
    print(f"| | | {' | '.join(COLUMNS)} |\n{'| --- ' * 6}|")
    for label in options.labels:
        print(row(label, "real", real(options.dataset, label)), flush=True)
        print(row(label, "synthetic", synthetic(label, options.count)), flush=True)


if __name__ == "__main__":
    main()
