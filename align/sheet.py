"""The sample sheet: spectrograms of sounds over the pictures that they drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def sample_sheet(
    path: Path,
    features: Sequence[np.ndarray],
    captions: Sequence[str],
    pictures: Mapping[str, Sequence[Image.Image]],
) -> None:
    """Draws N columns: a caption, the log-mel features heard, and pictures in rows.

    Args:
        path: where the PNG goes.
        features: N spectrograms, a frame a row.
        captions: N, what the recordings are said to be.
        pictures: rows of N pictures by the row's title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n, rows = len(features), 1 + len(pictures)
    figure = Figure(figsize=(1.5 * n + 0.8, 1.5 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.asarray(figure.subplots(rows, n, squeeze=False))
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax, feature, caption in zip(axes[0], features, captions, strict=True):
        ax.imshow(feature.T, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
        ax.set_title(_wrapped(caption), fontsize=7)
    axes[0, 0].set_ylabel("heard", fontsize=9)
    for row, (title, images) in zip(axes[1:], pictures.items(), strict=True):
        row[0].set_ylabel(title, fontsize=9)
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _wrapped(text: str, width: int = 22) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])
