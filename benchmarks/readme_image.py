"""Generate the image of the README: `python -m benchmarks.readme_image`.

It shows what audio adds to text: one source with two texts, two sources with the same texts, and
the frames of a video. Nothing is selected: clips and images take the first seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.cli import CommandParser
from soundprompt.mini.sounds import SAMPLE_RATE, recording

TEXTS = ("a picture at night", "a drawing by day")
SINGLE = ("rooster", "helicopter", "dog", "sea waves", "crackling fire")
MIXED = (
    ("rain", "dog"),
    ("crying baby", "clock tick"),
    ("sea waves", "helicopter"),
    ("sneezing", "crackling fire"),
    ("clock tick", "rooster"),
)
VIDEO = ("rooster", "rain", "helicopter", "crackling fire", "dog")
SECONDS = 2.0  # of each clip in the video


def clip(near: str, far: str | None, seed: int) -> dict[str, Any]:
    """A synthetic clip as the pipeline takes it."""
    waveform = recording(near, far, np.random.default_rng(seed))
    return {"array": waveform, "sampling_rate": SAMPLE_RATE}


def video_clip(seed: int) -> dict[str, Any]:
    """The clips of the video, one after the other."""
    length = int(SECONDS * SAMPLE_RATE)
    parts = [clip(name, None, seed + i)["array"][:length] for i, name in enumerate(VIDEO)]
    return {"array": np.concatenate(parts), "sampling_rate": SAMPLE_RATE}


def rows(pipe: Any, sources: Sequence[tuple[str, str | None]], seed: int) -> list[list[Any]]:
    """One row of images for each text, and one column for each clip."""
    clips = [clip(near, far, seed + i) for i, (near, far) in enumerate(sources)]
    return [
        [pipe(one, prompt=text, seed=seed + i).images[0] for i, one in enumerate(clips)]
        for text in TEXTS
    ]


def frames(pipe: Any, seed: int) -> tuple[np.ndarray, list[Image.Image]]:
    """The waveform of the video and one frame per second."""
    from diffuse.pipelines.animation import AudioFrames

    rate = pipe.encoder.feature_extractor.sampling_rate
    found = AudioFrames.from_audio(video_clip(seed), rate, fps=1.0, window_s=SECONDS)
    images = [
        pipe((rate, found.segments[i]), prompt=TEXTS[1], seed=seed).images[0]
        for i in found.source_frames()
    ]
    return found.waveform, images


def figure(pipe: Any, path: Path, seed: int) -> None:
    """Generate all images and write them into one figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    single = rows(pipe, [(name, None) for name in SINGLE], seed)
    mixed = rows(pipe, MIXED, seed)
    waveform, video = frames(pipe, seed)
    page = Figure(figsize=(12, 5.6), layout="constrained")
    FigureCanvasAgg(page)
    heights = [1, 1, 1, 0.4]
    axes = page.subplots(4, 10, gridspec_kw={"height_ratios": heights}, squeeze=False)
    titles = [*SINGLE, *(f"{near},\n{far} behind" for near, far in MIXED)]
    for column, title in enumerate(titles):
        axes[0, column].set_title(title, fontsize=8)
        for row in range(2):
            axes[row, column].imshow([*single[row], *mixed[row]][column])
        axes[2, column].imshow(video[column])
        second = np.array_split(waveform, len(titles))[column]
        axes[3, column].specgram(second, NFFT=512, noverlap=256, cmap="magma")
    for row, label in enumerate((*(f'"{text}"' for text in TEXTS), "video,\n1 frame/s", "audio")):
        axes[row, 0].set_ylabel(label, fontsize=8)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    page.savefig(path, dpi=110, pil_kwargs={"quality": 90})


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the mini models and write the image."""
    parser = CommandParser("python -m benchmarks.readme_image", description=__doc__)
    parser.add_argument("--encoder", default="runs/align/mini", help="Trained mini encoder.")
    parser.add_argument("--adapter", default="runs/diffuse/mini", help="Trained mini adapter.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the first clip and image.")
    parser.add_argument(
        "--output_file", type=Path, default=Path("docs/images/audio.jpg"), help="Output image."
    )
    options = parser.parse_args(arguments)
    from diffuse.pipelines.sound_pipeline import SoundPipeline

    pipe = SoundPipeline.from_pretrained("mini", options.encoder, options.adapter, device="cpu")
    figure(pipe, options.output_file, options.seed)
    print(options.output_file)


if __name__ == "__main__":
    main()
