"""Draws a sound as a film: `python -m diffuse.animate SOUND --out FILM.mp4`.

Every frame hears a stretch of the recording around its own moment and starts from the same noise,
so that the film changes as the sound does. An .mp4 carries the sound, a .gif is mute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    from align.cli import DefaultsHelpFormatter
    from diffuse.cli import add_generation_options, add_model_options

    parser = argparse.ArgumentParser(
        prog="python -m diffuse.animate", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("audio", help="a recording")
    parser.add_argument("--fps", type=float, default=4.0, help="frames a second")
    parser.add_argument(
        "--window_s", type=float, default=2.0, help="seconds that a frame hears around its moment"
    )
    add_model_options(parser)
    add_generation_options(parser, "the film: an .mp4 or a .gif")
    return parser.parse_args(given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws and writes the film."""
    options = _arguments(arguments)
    from align.audio.files import AudioError
    from align.cli import check_output_file
    from diffuse.cli import check_generation_options, load_pipeline
    from diffuse.pipelines.animation import (
        AudioFrames,
        check_frame_rate,
        check_video_path,
        save_video,
    )

    try:
        check_video_path(options.output_file)
        check_output_file(options.output_file)
        check_frame_rate(options.fps, options.window_s)
        check_generation_options(options, [options.audio])
        pipe = load_pipeline(options)
        rate = pipe.encoder.processor.feature_extractor.sampling_rate
        audio_frames = AudioFrames.from_audio(options.audio, rate, options.fps, options.window_s)
        frames = generate_frames(pipe, audio_frames, options)
        save_video(options.output_file, frames, options.fps, audio_frames.waveform, rate)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.animate: {error}") from error
    print(f"{options.output_file}: {len(frames)} frames")


def generate_frames(pipe: Any, audio_frames: Any, options: argparse.Namespace) -> list[Any]:
    """The frames (PIL images) of a recording's moments.

    Args:
        pipe: a `SoundPipeline`.
        moments: the recording's.
        options: as `add_generation_options` defines them.

    Raises:
        ValueError: options do not fit the models.
    """
    from tqdm import tqdm

    from diffuse.cli import generation_kwargs

    images: dict[int, Any] = {}
    frames = audio_frames.source_frames()
    for i in tqdm(sorted(set(frames)), "frames"):
        images[i] = pipe(
            (audio_frames.sampling_rate, audio_frames.segments[i]),
            **generation_kwargs(options),
        ).images[0]
    return [images[i] for i in frames]


if __name__ == "__main__":
    main()
