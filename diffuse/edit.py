"""Edit an image with audio.

With --method inversion the image is inverted with DDIM without audio, then denoised again with
audio; injected self-attention features preserve the layout. With --audio_scale 0 the image is
reconstructed. With --method img2img noise is added to the image and removed with audio. The other
options are those of diffuse.generate.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METHODS = ("inversion", "img2img")
COMMAND = "python -m diffuse.edit"
EXAMPLES = (
    f"{COMMAND} photo.png rain.wav --adapter runs/diffuse/mini --output_dir edited",
    f"{COMMAND} photo.png rain.wav --injection_ratio 0.8 --output_dir edited",
    f"{COMMAND} photo.png rain.wav --method img2img --strength 0.5 --output_dir edited",
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    from align.cli import CommandParser, argument_group
    from diffuse.cli import add_generation_options, add_model_options, add_output_dir

    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    data = argument_group(parser, "data")
    data.add_argument("image", type=Path, help="Image to edit.")
    data.add_argument("audio", nargs="+", help="Audio files; several are combined.")
    add_model_options(parser)
    add_generation_options(parser)
    group = argument_group(parser, "generation")
    group.add_argument(
        "--method", choices=METHODS, default="inversion",
        help="Edit by DDIM inversion (inversion) or by image-to-image (img2img).",
    )  # fmt: skip
    group.add_argument(
        "--strength", type=float,
        help="Amount of noise added to the image, up to 1; higher values change more.",
    )  # fmt: skip
    group.add_argument(
        "--injection_ratio", type=float,
        help="Fraction of the denoising steps with injected self-attention features, which "
        "preserve the layout (inversion only).",
    )  # fmt: skip
    group.add_argument(
        "--source_prompt", help="Prompt that describes the input image (inversion only)."
    )
    add_output_dir(parser)
    options = parser.parse_args(given)
    if options.method == "img2img":
        for name in ("injection_ratio", "source_prompt"):
            if getattr(options, name) is not None:
                parser.error(f"--{name} requires --method inversion")
    elif options.scheduler is not None:
        parser.error("--method inversion uses DDIM: leave --scheduler out")
    return options


def _image_kwargs(options: argparse.Namespace) -> dict[str, Any]:
    """Return the image arguments of a `SoundPipeline` call; options not given keep its defaults.

    With an adapter and without --prompt, the source prompt is used as the prompt.
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
    """Edit the image that the command line names."""
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
        check_output_dir(options.output_dir)
        image_kwargs = _image_kwargs(options)
        check_generation_options(options, options.audio)
        output = load_pipeline(options)(options.audio, **generation_kwargs(options), **image_kwargs)
        paths = save_images(output.images, output.metadata, options.output_dir)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.edit: {error}") from error
    print_results(output, paths)


if __name__ == "__main__":
    main()
