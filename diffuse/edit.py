"""Redraws a picture by sounds: `python -m diffuse.edit PICTURE SOUND... --out FOLDER`.

The picture is the beginning in place of noise (image-to-image): what the sound asks for is drawn
over it, the more the greater --strength. The rest is as in `python -m diffuse.generate`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    from diffuse.generate import add_drawing_options, add_model_options

    parser = argparse.ArgumentParser(
        prog="python -m diffuse.edit", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("picture", type=Path, help="the picture to begin from")
    parser.add_argument("sounds", nargs="+", help="recordings, heard together")
    parser.add_argument(
        "--strength", type=float, default=0.6, help="how much is drawn anew, up to 1"
    )
    add_model_options(parser)
    add_drawing_options(parser)
    return parser.parse_args(given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Redraws what the command line names."""
    options = _arguments(arguments)
    from align.audio import AudioError
    from align.doorway import check_folder
    from diffuse.beginning import read_picture
    from diffuse.generate import (
        check_given,
        drawing_arguments,
        load_pipeline,
        report,
        save_pictures,
    )

    try:
        read_picture(options.picture)  # before the models are loaded
        check_folder(options.out)
        check_given(options, options.sounds)
        drawn = load_pipeline(options)(
            options.sounds,
            **drawing_arguments(options),
            image=options.picture,
            strength=options.strength,
        )
        paths = save_pictures(drawn.images, drawn.settings, options.out)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.edit: {error}") from error
    report(drawn, paths)


if __name__ == "__main__":
    main()
