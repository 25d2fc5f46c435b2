"""Draws pictures of sounds: `python -m diffuse.generate SOUND... --encoder RUN --out FOLDER`.

The same command writes the same bytes again. What made a picture stands in the PNG itself, under
the key "soundprompt". Where other settings made a picture of that name before, it is written over,
and that is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from align.cli import Defaults, check_folder
from diffuse.cli import (
    add_drawing_options,
    add_model_options,
    check_given,
    check_shares,
    drawing_arguments,
    load_pipeline,
    report,
    save_pictures,
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.generate", description=__doc__, allow_abbrev=False,
        formatter_class=Defaults,
    )  # fmt: skip
    parser.add_argument("sounds", nargs="+", help="recordings, drawn together")
    add_model_options(parser)
    add_drawing_options(parser)
    parser.add_argument("--weights", nargs="+", type=float, help="how much each sound counts")
    parser.add_argument(
        "--levels", nargs="+", metavar="LEVEL",
        help="the sounds' levels, in their order: foreground, background, ambience",
    )  # fmt: skip
    parser.add_argument(
        "--audio_steps", nargs=2, type=float, default=(0.0, 1.0), metavar=("FROM", "TO"),
        help="share of the noise schedule in which the adapter hears",
    )  # fmt: skip
    parser.add_argument("--num_images", type=int, default=1, help="pictures, a seed each")
    parser.add_argument("--height", type=int, help="in pixels")
    parser.add_argument("--width", type=int, help="in pixels")
    options = parser.parse_args(given)
    if options.levels and len(options.levels) != len(options.sounds):
        parser.error(f"{len(options.sounds)} sounds need as many --levels")
    if options.levels and len(set(options.levels)) != len(options.levels):
        parser.error("--levels names a level twice")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws what the command line asks for."""
    options = _arguments(arguments)
    from align.audio.files import AudioError

    sounds: Any = options.sounds
    if options.levels:
        sounds = dict(zip(options.levels, options.sounds, strict=True))
    names = ("num_images", "height", "width", "audio_steps")
    more = {name: getattr(options, name) for name in names}
    try:
        check_folder(options.out)
        check_given(options, options.sounds, by_level=bool(options.levels), **more)
        check_shares(sounds, options.weights)
        drawn = load_pipeline(options)(
            sounds, **drawing_arguments(options), **more, weights=options.weights
        )
        paths = save_pictures(drawn.images, drawn.settings, options.out)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.generate: {error}") from error
    report(drawn, paths)


if __name__ == "__main__":
    main()
