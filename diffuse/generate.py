"""Draws pictures of sounds: `python -m diffuse.generate SOUND... --encoder RUN --out FOLDER`.

The same command writes the same bytes again. What made a picture stands in the PNG itself, under
the key "soundprompt". Where other settings made a picture of that name before, it is written over,
and that is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from align.cli import DefaultsHelpFormatter, check_output_dir
from diffuse.cli import (
    add_generation_options,
    add_model_options,
    check_audio_weights,
    check_generation_options,
    generation_kwargs,
    load_pipeline,
    print_results,
    save_images,
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.generate", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("audio", nargs="+", help="recordings, drawn together")
    add_model_options(parser)
    add_generation_options(parser)
    parser.add_argument("--audio_weights", nargs="+", type=float, help="how much each sound counts")
    parser.add_argument(
        "--audio_levels", nargs="+", metavar="LEVEL",
        help="the sounds' levels, in their order: foreground, background, ambience",
    )  # fmt: skip
    parser.add_argument(
        "--audio_interval", nargs=2, type=float, default=(0.0, 1.0), metavar=("FROM", "TO"),
        help="share of the noise schedule in which the adapter hears",
    )  # fmt: skip
    parser.add_argument("--num_images", type=int, default=1, help="pictures, a seed each")
    parser.add_argument("--height", type=int, help="in pixels")
    parser.add_argument("--width", type=int, help="in pixels")
    options = parser.parse_args(given)
    if options.audio_levels and len(options.audio_levels) != len(options.audio):
        parser.error(f"{len(options.audio)} sounds need as many --audio_levels")
    if options.audio_levels and len(set(options.audio_levels)) != len(options.audio_levels):
        parser.error("--audio_levels names a level twice")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws what the command line asks for."""
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
            audio, **generation_kwargs(options), **more, weights=options.audio_weights
        )
        paths = save_images(output.images, output.metadata, options.output_dir)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.generate: {error}") from error
    print_results(output, paths)


if __name__ == "__main__":
    main()
