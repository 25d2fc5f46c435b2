"""Edits a picture by sounds: `python -m diffuse.edit PICTURE SOUND... --out FOLDER`.

By --method inversion the picture is followed back to the noise that it comes from and drawn again
from there with the sound, its layout kept for --inject of the steps; at --audio_scale 0 it comes
back as it was. By --method image it is the beginning in place of noise (image-to-image): the more
is drawn anew, the greater --strength. The rest is as in `python -m diffuse.generate`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METHODS = ("inversion", "image")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    from align.cli import Defaults
    from diffuse.cli import add_drawing_options, add_model_options

    parser = argparse.ArgumentParser(
        prog="python -m diffuse.edit", description=__doc__, allow_abbrev=False,
        formatter_class=Defaults,
    )  # fmt: skip
    parser.add_argument("picture", type=Path, help="the picture to begin from")
    parser.add_argument("sounds", nargs="+", help="recordings, heard together")
    parser.add_argument("--method", choices=METHODS, default="inversion", help="see above")
    parser.add_argument(
        "--strength", type=float, help="image: how much is drawn anew, up to 1; inversion: how far "
        "to the noise it goes",
    )  # fmt: skip
    parser.add_argument(
        "--inject", type=float, help="inversion: share of the steps that keep the layout"
    )
    parser.add_argument("--source", help="inversion: a text that says what the picture shows")
    add_model_options(parser)
    add_drawing_options(parser)
    options = parser.parse_args(given)
    if options.method == "image":
        for name in ("inject", "source"):
            if getattr(options, name) is not None:
                parser.error(f"--{name} is for --method inversion")
    elif options.scheduler is not None:
        parser.error("--method inversion goes by DDIM: leave --scheduler out")
    return options


def _begin(options: argparse.Namespace) -> dict[str, Any]:
    """What `SoundPipeline` is told of the picture; what is not given is a default of its own.

    An adapter hears the sound beside the text, which then says what the picture's source says.
    """
    names = ("strength", "inject", "source") if options.method == "inversion" else ("strength",)
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    if options.method == "image":
        return {"image": options.picture, **given}
    from diffuse.pipelines.inversion import Inversion

    wanted = Inversion(options.picture, **given)
    if options.prompt is None and options.adapter:
        options.prompt = wanted.source
    return {"image": wanted}


def main(arguments: Sequence[str] | None = None) -> None:
    """Edits what the command line names."""
    options = _arguments(arguments)
    from align.audio.files import AudioError
    from align.cli import check_folder
    from diffuse.cli import check_given, drawing_arguments, load_pipeline, report, save_pictures
    from diffuse.data.images import open_image

    try:
        open_image(options.picture)  # before the models are loaded
        check_folder(options.out)
        begin = _begin(options)
        check_given(options, options.sounds)
        drawn = load_pipeline(options)(options.sounds, **drawing_arguments(options), **begin)
        paths = save_pictures(drawn.images, drawn.settings, options.out)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.edit: {error}") from error
    report(drawn, paths)


if __name__ == "__main__":
    main()
