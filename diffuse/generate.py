"""Draws pictures of sounds: `python -m diffuse.generate SOUND... --encoder RUN --out FOLDER`.

The same command writes the same bytes again. What made a picture stands in the PNG itself, under
the key "soundprompt".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.devices import add_device


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which models draw."""
    parser.add_argument("--base", default="mini", help="pipeline: a name, a folder or a hub id")
    parser.add_argument("--encoder", default="runs/align/mini", help="folder or hub id of one")
    parser.add_argument(
        "--adapter", action="append", metavar="FOLDER", help="a sound adapter; may be repeated"
    )
    parser.add_argument(
        "--adapter_weights", nargs="+", type=float, help="how much each of several counts"
    )
    parser.add_argument("--scheduler", help="ddim, dpm, euler, euler-a, pndm or unipc")
    add_device(parser)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="of the base")


def add_drawing_options(
    parser: argparse.ArgumentParser, out: str = "a folder for the pictures"
) -> None:
    """The options that say what is drawn."""
    parser.add_argument("--prompt", help='text beside the sound; "" for none at all')
    parser.add_argument("--negative_prompt", help="what to guide away from")
    parser.add_argument("--audio_scale", type=float, default=1.0, help="0 draws without the sound")
    parser.add_argument("--guidance_scale", type=float, default=5.0, help="to text and sound")
    parser.add_argument("--audio_guidance", type=float, help="of the sound apart from the text")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture")
    parser.add_argument("--relation", default="auto", help="of text and sound; see the docs")
    parser.add_argument("--out", type=Path, required=True, help=out)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.generate", description=__doc__, allow_abbrev=False
    )
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


def drawing_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `SoundPipeline` that `add_drawing_options` describe."""
    names = (
        "prompt", "negative_prompt", "audio_scale", "guidance_scale", "audio_guidance", "seed",
        "relation",
    )  # fmt: skip
    return {name: getattr(options, name) for name in names} | {"num_inference_steps": options.steps}


def load_pipeline(options: argparse.Namespace) -> Any:
    """The pipeline that `add_model_options` describe.

    Raises:
        ValueError: something does not exist, or does not belong together.
    """
    import torch

    from diffuse.pipeline import SoundPipeline

    folders = options.adapter or []
    names = ["sound"] if len(folders) == 1 else [f"sound-{i + 1}" for i in range(len(folders))]
    pipeline = SoundPipeline.from_pretrained(
        options.base,
        options.encoder,
        dict(zip(names, folders, strict=True)) or None,
        device=options.device,
        dtype=None if options.dtype is None else getattr(torch, options.dtype),
        scheduler=options.scheduler,
    )
    weights = options.adapter_weights
    if weights is not None:
        if pipeline.attachment is None or len(weights) != len(names):
            raise ValueError(f"{len(names)} adapters and {len(weights)} --adapter_weights")
        pipeline.attachment.set_weights(dict(zip(names, weights, strict=True)))
    return pipeline


def check_out(out: Path) -> None:
    """Refuses a file in the place of the folder for the pictures, before anything is drawn.

    Raises:
        ValueError: there is a file of that name.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder for the pictures")


def save_pictures(images: Sequence[Any], settings: dict[str, Any], out: Path) -> list[Path]:
    """Writes pictures as seed-N.png with their settings inside; the paths."""
    from PIL.PngImagePlugin import PngInfo

    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(images):
        seed = settings["seed"] + i
        info = PngInfo()
        own = {**settings, "seed": seed, "num_images": 1}
        info.add_text("soundprompt", json.dumps(own, sort_keys=True))
        paths.append(out / f"seed-{seed}.png")
        image.save(paths[-1], pnginfo=info)
    return paths


def report(drawn: Any, paths: Sequence[Path]) -> None:
    """Prints how text and sound relate, and where the pictures lie."""
    if drawn.relation is not None:
        print(f"{drawn.relation.name}: {drawn.relation.words}")
    for path in paths:
        print(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws what the command line asks for."""
    options = _arguments(arguments)
    from align.audio import AudioError

    sounds: Any = options.sounds
    if options.levels:
        sounds = dict(zip(options.levels, options.sounds, strict=True))
    try:
        check_out(options.out)
        drawn = load_pipeline(options)(
            sounds,
            **drawing_arguments(options),
            num_images=options.num_images,
            height=options.height,
            width=options.width,
            weights=options.weights,
            audio_steps=tuple(options.audio_steps),
        )
        paths = save_pictures(drawn.images, drawn.settings, options.out)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.generate: {error}") from error
    report(drawn, paths)


if __name__ == "__main__":
    main()
