"""Draws pictures of sounds: `python -m diffuse.generate SOUND... --encoder RUN --out FOLDER`.

The same command writes the same bytes again. What made a picture stands in the PNG itself, under
the key "soundprompt". Where other settings made a picture of that name before, it is written over,
and that is said.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.cli import add_device, check_recordings

KEY = "soundprompt"  # of the settings in a PNG's text
# What only some of the commands let one choose.
UNSAID = {
    "num_images": 1, "height": None, "width": None, "level_scales": None,
    "audio_steps": (0.0, 1.0), "by_level": False,
}  # fmt: skip


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

    from diffuse.pipelines.sound_pipeline import SoundPipeline

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
    if options.adapter_weights is not None and pipeline.attachment is not None:
        pipeline.attachment.set_weights(dict(zip(names, options.adapter_weights, strict=True)))
    return pipeline


def check_given(options: argparse.Namespace, sounds: Sequence[Any], **more: Any) -> None:
    """Refuses what can be told to be wrong before any model is loaded, the quickest first.

    Args:
        options: as `add_model_options` and `add_drawing_options` describe them.
        sounds: the recordings.
        more: further arguments of `SoundPipeline`, where they are not its defaults.

    Raises:
        AudioError: a recording cannot be opened.
        ValueError: an adapter is not there, or an option is out of its range.
    """
    check_recordings(sounds)
    folders, weights = options.adapter or [], options.adapter_weights
    if weights is not None and len(weights) != len(folders):
        raise ValueError(f"{len(folders)} adapters and {len(weights)} --adapter_weights")
    if not all(map(math.isfinite, weights or [])):
        raise ValueError(f"--adapter_weights are numbers, not {weights}")
    if options.relation not in ("auto", "none") and not (options.prompt or "").strip():
        raise ValueError(f"--relation {options.relation} is of text and sound: give a --prompt")
    from diffuse.models.saving import read_config
    from diffuse.pipelines.inputs import check_drawing
    from diffuse.pipelines.loading import check_scheduler

    check_scheduler(options.scheduler, options.steps)
    for folder in folders:
        read_config(Path(folder))
    given = UNSAID | drawing_arguments(options) | more
    check_drawing(given, given.pop("by_level"), bool(folders))


def check_shares(sounds: Any, weights: Sequence[float] | None) -> None:
    """Refuses weights or levels that do not fit the sounds.

    Raises:
        ValueError: there are more or fewer weights than sounds, or a level does not exist.
    """
    from diffuse.pipelines.inputs import Sounds

    Sounds.of(sounds, weights)


def save_pictures(images: Sequence[Any], settings: dict[str, Any], out: Path) -> list[Path]:
    """Writes pictures as seed-N.png with their settings inside; the paths.

    What lay there and was made otherwise is written over, and told of on standard error.
    """
    from PIL.PngImagePlugin import PngInfo

    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(images):
        seed = settings["seed"] + i
        info = PngInfo()
        own = {**settings, "seed": seed, "num_images": 1}
        info.add_text(KEY, json.dumps(own, sort_keys=True))
        paths.append(out / f"seed-{seed}.png")
        before = _difference(paths[-1], image, own)
        image.save(paths[-1], pnginfo=info)
        if before:
            print(f"{paths[-1]} is written over: {before}", file=sys.stderr)
    return paths


def _difference(path: Path, image: Any, own: dict[str, Any]) -> str:
    """How a picture of that name was made otherwise; "" where there is none or it is the same."""
    from PIL import Image

    if not path.exists():
        return ""
    try:
        with Image.open(path) as picture:
            before, same = json.loads(picture.info[KEY]), picture.tobytes() == image.tobytes()
    except (OSError, KeyError, ValueError):
        return "it was no picture of these commands"
    now = json.loads(json.dumps(own))
    names = [n for n in sorted({*before, *now}) if before.get(n) != now.get(n)]
    if not names and not same:
        return "a recording or a model was another of the same name"
    return "; ".join(f"{name} was {json.dumps(before.get(name))}" for name in names)


def report(drawn: Any, paths: Sequence[Path]) -> None:
    """Prints how text and sound relate, and where the pictures lie."""
    if drawn.relation is not None:
        print(f"{drawn.relation.name}: {drawn.relation.words}")
    for path in paths:
        print(path)
