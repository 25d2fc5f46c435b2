"""Generate a video from audio.

Each frame is conditioned on the audio around its time. All frames start from the same noise, so the
video changes only with the audio. An .mp4 file includes the audio, a .gif file does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMAND = "python -m diffuse.animate"
EXAMPLES = (
    f"{COMMAND} street.wav --output_file street.mp4",
    f"{COMMAND} street.wav --fps 8 --window_s 1 --output_file street.gif",
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    from align.cli import CommandParser, argument_group
    from diffuse.cli import add_generation_options, add_model_options

    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    argument_group(parser, "data").add_argument("audio", help="Audio file.")
    add_model_options(parser)
    add_generation_options(parser)
    group = argument_group(parser, "generation")
    group.add_argument("--fps", type=float, default=4.0, help="Frames per second.")
    group.add_argument("--window_s", type=float, default=2.0, help="Seconds of audio per frame.")
    argument_group(parser, "output").add_argument(
        "--output_file", type=Path, required=True, metavar="FILE",
        help="Output video (.mp4 or .gif).",
    )  # fmt: skip
    return parser.parse_args(given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate and save the video."""
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
        check_output_file(options.output_file, "--output_file")
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
    """Generate the frames of a video.

    Args:
        pipe: A `SoundPipeline`.
        audio_frames: The `AudioFrames` of the audio.
        options: Options of `add_generation_options`.

    Returns:
        One PIL image per frame.

    Raises:
        ValueError: If the options do not fit the models.
    """
    from tqdm import tqdm

    from diffuse.cli import generation_kwargs

    images: dict[int, Any] = {}
    source_frames = audio_frames.source_frames()
    for i in tqdm(sorted(set(source_frames)), "frames"):
        images[i] = pipe(
            (audio_frames.sampling_rate, audio_frames.segments[i]),
            **generation_kwargs(options),
        ).images[0]
    return [images[i] for i in source_frames]


if __name__ == "__main__":
    main()
