"""Generate images from audio.

The same command writes the same bytes. The metadata of an image is stored in the PNG under the key
"soundprompt".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from align.cli import CommandParser, argument_group, check_output_dir
from diffuse.cli import (
    add_generation_options,
    add_model_options,
    add_output_dir,
    check_audio_weights,
    check_generation_options,
    generation_kwargs,
    load_pipeline,
    print_results,
    save_images,
)

COMMAND = "python -m diffuse.generate"
EXAMPLES = (
    f"{COMMAND} dog.wav --output_dir images",
    f"{COMMAND} dog.wav --adapter runs/diffuse/mini --prompt 'at night' --output_dir images",
    f"{COMMAND} dog.wav rain.wav --audio_weights 2 1 --num_images 4 --output_dir images",
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    argument_group(parser, "data").add_argument(
        "audio", nargs="+", help="Audio files; several are combined."
    )
    add_model_options(parser)
    add_generation_options(parser)
    group = argument_group(parser, "generation")
    group.add_argument(
        "--audio_weights", nargs="+", type=float, metavar="WEIGHT",
        help="Weight of each audio file.",
    )  # fmt: skip
    group.add_argument(
        "--audio_levels", nargs="+", metavar="LEVEL",
        help="Level of each audio file: foreground, background or ambience "
        "(requires an adapter).",
    )  # fmt: skip
    group.add_argument(
        "--audio_interval", nargs=2, type=float, default=(0.0, 1.0), metavar=("FROM", "TO"),
        help="Fraction of the noise schedule with audio conditioning, from 0 (noise) to 1 (image).",
    )  # fmt: skip
    group.add_argument("--num_images", type=int, default=1, help="Number of images.")
    group.add_argument("--height", type=int, help="Image height in pixels.")
    group.add_argument("--width", type=int, help="Image width in pixels.")
    add_output_dir(parser)
    options = parser.parse_args(given)
    levels = options.audio_levels
    if levels and len(levels) != len(options.audio):
        parser.error(f"{len(options.audio)} audio files need as many --audio_levels")
    if levels and len(set(levels)) != len(levels):
        parser.error("--audio_levels names a level twice")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate the images that the command line asks for."""
    options = _arguments(arguments)
    from align.audio.files import AudioError

    audio: Any = options.audio
    if options.audio_levels:
        audio = dict(zip(options.audio_levels, options.audio, strict=True))
    names = ("num_images", "height", "width", "audio_interval")
    more = {name: getattr(options, name) for name in names}
    try:
        check_output_dir(options.output_dir)
        check_generation_options(
            options, options.audio, by_level=bool(options.audio_levels), **more
        )
        check_audio_weights(audio, options.audio_weights)
        output = load_pipeline(options)(
            audio, **generation_kwargs(options), **more, audio_weights=options.audio_weights
        )
        paths = save_images(output.images, output.metadata, options.output_dir)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.generate: {error}") from error
    print_results(output, paths)


if __name__ == "__main__":
    main()
