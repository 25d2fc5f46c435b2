"""Edits a picture by sounds: `python -m diffuse.edit PICTURE SOUND... --out FOLDER`.

By --method inversion the picture is followed back to the noise that it comes from and drawn again
from there with the sound, its layout kept for --injection_ratio of the steps; at --audio_scale 0 it comes
back as it was. By --method image it is the beginning in place of noise (image-to-image): the more
is drawn anew, the greater --strength. The rest is as in `python -m diffuse.generate`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METHODS = ("inversion", "img2img")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    from align.cli import DefaultsHelpFormatter
    from diffuse.cli import add_generation_options, add_model_options

    parser = argparse.ArgumentParser(
        prog="python -m diffuse.edit", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("image", type=Path, help="the picture to begin from")
    parser.add_argument("audio", nargs="+", help="recordings, heard together")
    parser.add_argument("--method", choices=METHODS, default="inversion", help="see above")
    parser.add_argument(
        "--strength", type=float, help="image: how much is drawn anew, up to 1; inversion: how far "
        "to the noise it goes",
    )  # fmt: skip
    parser.add_argument(
        "--injection_ratio", type=float, help="inversion: share of the steps that keep the layout"
    )
    parser.add_argument(
        "--source_prompt", help="inversion: a text that says what the picture shows"
    )
    add_model_options(parser)
    add_generation_options(parser)
    options = parser.parse_args(given)
    if options.method == "img2img":
        for name in ("injection_ratio", "source_prompt"):
            if getattr(options, name) is not None:
                parser.error(f"--{name} is for --method inversion")
    elif options.scheduler is not None:
        parser.error("--method inversion goes by DDIM: leave --scheduler out")
    return options


def _init_worker(options: argparse.Namespace) -> dict[str, Any]:
    """What `SoundPipeline` is told of the picture; what is not given is a default of its own.

    An adapter hears the sound beside the text, which then says what the picture's source says.
    """
    names = (
        ("strength", "injection_ratio", "source_prompt")
        if options.method == "inversion"
        else ("strength",)
    )
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    if options.method == "img2img":
        return {"image": options.image, **given}
    from diffuse.pipelines.inversion import Inversion

    inversion = Inversion(options.image, **given)
    if options.prompt is None and options.adapter:
        options.prompt = inversion.source_prompt
    return {"image": inversion}


def main(arguments: Sequence[str] | None = None) -> None:
    """Edits what the command line names."""
    options = _arguments(arguments)
    from align.audio.files import AudioError
    from align.cli import check_output_dir
    from diffuse.cli import (
        check_generation_options,
        generation_kwargs,
        load_pipeline,
        print_results,
        save_images,
    )
    from diffuse.data.images import open_image

    try:
        open_image(options.image)  # before the models are loaded
        check_output_dir(options.out)
        image_kwargs = _init_worker(options)
        check_generation_options(options, options.audio)
        output = load_pipeline(options)(options.audio, **generation_kwargs(options), **image_kwargs)
        paths = save_images(output.images, output.metadata, options.out)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.edit: {error}") from error
    print_results(output, paths)


if __name__ == "__main__":
    main()
