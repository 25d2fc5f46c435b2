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

from align.cli import add_device, check_audio

METADATA_KEY = "soundprompt"  # of the settings in a PNG's text
# What only some of the commands let one choose.
DEFAULT_INPUTS = {
    "num_images": 1, "height": None, "width": None, "level_scales": None,
    "audio_interval": (0.0, 1.0), "by_level": False,
}  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which models draw."""
    parser.add_argument(
        "--base_model", default="mini", help="pipeline: a name, a folder or a hub id"
    )
    parser.add_argument("--encoder", default="runs/align/mini", help="folder or hub id of one")
    parser.add_argument(
        "--adapter", action="append", metavar="FOLDER", help="a sound adapter; may be repeated"
    )
    parser.add_argument(
        "--adapter_weights", nargs="+", type=float, help="how much each of several counts"
    )
    parser.add_argument("--scheduler", help="ddim, dpm, euler, euler-a, pndm or unipc")
    add_device(parser)
    parser.add_argument(
        "--torch_dtype", choices=("float32", "float16", "bfloat16"), help="of the base"
    )


def add_generation_options(
    parser: argparse.ArgumentParser, output_help: str = "a folder for the pictures"
) -> None:
    """The options that say what is drawn."""
    parser.add_argument("--prompt", help='text beside the sound; "" for none at all')
    parser.add_argument("--negative_prompt", help="what to guide away from")
    parser.add_argument("--audio_scale", type=float, default=1.0, help="0 draws without the sound")
    parser.add_argument("--guidance_scale", type=float, default=5.0, help="to text and sound")
    parser.add_argument(
        "--audio_guidance_scale", type=float, help="of the sound apart from the text"
    )
    parser.add_argument("--num_inference_steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture")
    parser.add_argument("--relation", default="auto", help="of text and sound; see the docs")
    parser.add_argument("--output_dir", type=Path, required=True, help=output_help)


def generation_kwargs(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `SoundPipeline` that `add_generation_options` describe."""
    names = (
        "prompt", "negative_prompt", "audio_scale", "guidance_scale", "audio_guidance_scale", "seed",
        "relation",
    )  # fmt: skip
    return {name: getattr(options, name) for name in names} | {
        "num_inference_steps": options.num_inference_steps
    }


def load_pipeline(options: argparse.Namespace) -> Any:
    """The pipeline that `add_model_options` describe.

    Raises:
        ValueError: something does not exist, or does not belong together.
    """
    import torch

    from diffuse.pipelines.sound_pipeline import SoundPipeline

    folders = options.adapter or []
    names = ["adapter"] if len(folders) == 1 else [f"sound-{i + 1}" for i in range(len(folders))]
    pipeline = SoundPipeline.from_pretrained(
        options.base_model,
        options.encoder,
        dict(zip(names, folders, strict=True)) or None,
        device=options.device,
        torch_dtype=None if options.torch_dtype is None else getattr(torch, options.torch_dtype),
        scheduler=options.scheduler,
    )
    if options.adapter_weights is not None and pipeline.attached is not None:
        pipeline.attached.set_adapter_weights(
            dict(zip(names, options.adapter_weights, strict=True))
        )
    return pipeline


def check_generation_options(
    options: argparse.Namespace, audio: Sequence[Any], **more: Any
) -> None:
    """Refuses what can be told to be wrong before any model is loaded, the quickest first.

    Args:
        options: as `add_model_options` and `add_generation_options` describe them.
        sounds: the recordings.
        more: further arguments of `SoundPipeline`, where they are not its defaults.

    Raises:
        AudioError: a recording cannot be opened.
        ValueError: an adapter is not there, or an option is out of its range.
    """
    check_audio(audio)
    folders, weights = options.adapter or [], options.adapter_weights
    if weights is not None and len(weights) != len(folders):
        raise ValueError(f"{len(folders)} adapters and {len(weights)} --adapter_weights")
    if not all(map(math.isfinite, weights or [])):
        raise ValueError(f"--adapter_weights are numbers, not {weights}")
    if options.relation not in ("auto", "none") and not (options.prompt or "").strip():
        raise ValueError(f"--relation {options.relation} is of text and sound: give a --prompt")
    from diffuse.models.saving import read_config
    from diffuse.pipelines.inputs import check_inputs
    from diffuse.pipelines.loading import check_scheduler

    check_scheduler(options.scheduler, options.num_inference_steps)
    for folder in folders:
        read_config(Path(folder))
    given = DEFAULT_INPUTS | generation_kwargs(options) | more
    check_inputs(given, given.pop("by_level"), bool(folders))


def check_audio_weights(audio: Any, weights: Sequence[float] | None) -> None:
    """Refuses weights or levels that do not fit the sounds.

    Raises:
        ValueError: there are more or fewer weights than sounds, or a level does not exist.
    """
    from diffuse.pipelines.inputs import AudioInputs

    AudioInputs.from_inputs(audio, weights)


def save_images(images: Sequence[Any], metadata: dict[str, Any], output_dir: Path) -> list[Path]:
    """Writes pictures as seed-N.png with their settings inside; the paths.

    What lay there and was made otherwise is written over, and told of on standard error.
    """
    from PIL.PngImagePlugin import PngInfo

    output_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(images):
        seed = metadata["seed"] + i
        info = PngInfo()
        own = {**metadata, "seed": seed, "num_images": 1}
        info.add_text(METADATA_KEY, json.dumps(own, sort_keys=True))
        paths.append(output_dir / f"seed-{seed}.png")
        before = _metadata_difference(paths[-1], image, own)
        image.save(paths[-1], pnginfo=info)
        if before:
            print(f"{paths[-1]} is written over: {before}", file=sys.stderr)
    return paths


def _metadata_difference(path: Path, image: Any, own: dict[str, Any]) -> str:
    """How a picture of that name was made otherwise; "" where there is none or it is the same."""
    from PIL import Image

    if not path.exists():
        return ""
    try:
        with Image.open(path) as existing:
            before, same = (
                json.loads(existing.info[METADATA_KEY]),
                existing.tobytes() == image.tobytes(),
            )
    except (OSError, KeyError, ValueError):
        return "it was no picture of these commands"
    now = json.loads(json.dumps(own))
    names = [n for n in sorted({*before, *now}) if before.get(n) != now.get(n)]
    if not names and not same:
        return "a recording or a model was another of the same name"
    return "; ".join(f"{name} was {json.dumps(before.get(name))}" for name in names)


def print_results(output: Any, paths: Sequence[Path]) -> None:
    """Prints how text and sound relate, and where the pictures lie."""
    if output.relation is not None:
        print(f"{output.relation.name}: {output.relation.description}")
    for path in paths:
        print(path)
