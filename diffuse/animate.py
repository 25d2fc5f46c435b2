"""Draws a sound as a film: `python -m diffuse.animate SOUND --out FILM.mp4`.

Every frame hears a stretch of the recording around its own moment and starts from the same noise,
so that the film changes as the sound does. An .mp4 carries the sound, a .gif is mute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    from align.cli import Defaults
    from diffuse.cli import add_drawing_options, add_model_options

    parser = argparse.ArgumentParser(
        prog="python -m diffuse.animate", description=__doc__, allow_abbrev=False,
        formatter_class=Defaults,
    )  # fmt: skip
    parser.add_argument("sound", help="a recording")
    parser.add_argument("--fps", type=float, default=4.0, help="frames a second")
    parser.add_argument(
        "--window_s", type=float, default=2.0, help="seconds that a frame hears around its moment"
    )
    add_model_options(parser)
    add_drawing_options(parser, "the film: an .mp4 or a .gif")
    return parser.parse_args(given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws and writes the film."""
    options = _arguments(arguments)
    from align.audio.files import AudioError
    from align.cli import check_file
    from diffuse.cli import check_given, load_pipeline
    from diffuse.pipelines.animation import Moments, check_film, check_pace, save_film

    try:
        check_film(options.out)
        check_file(options.out)
        check_pace(options.fps, options.window_s)
        check_given(options, [options.sound])
        pipe = load_pipeline(options)
        rate = pipe.encoder.ear.extractor.sampling_rate
        moments = Moments.of(options.sound, rate, options.fps, options.window_s)
        frames = draw_moments(pipe, moments, options)
        save_film(options.out, frames, options.fps, moments.waveform, rate)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.animate: {error}") from error
    print(f"{options.out}: {len(frames)} frames")


def draw_moments(pipe: Any, moments: Any, options: argparse.Namespace) -> list[Any]:
    """The frames (PIL images) of a recording's moments.

    Args:
        pipe: a `SoundPipeline`.
        moments: the recording's.
        options: as `add_drawing_options` defines them.

    Raises:
        ValueError: options do not fit the models.
    """
    from tqdm import tqdm

    from diffuse.cli import drawing_arguments

    drawn: dict[int, Any] = {}
    frames = moments.shown()
    for i in tqdm(sorted(set(frames)), "frames"):
        drawn[i] = pipe(
            (moments.rate, moments.stretches[i]),
            **drawing_arguments(options),
        ).images[0]
    return [drawn[i] for i in frames]


if __name__ == "__main__":
    main()
