"""Shared parts of `diffuse.generate`, `diffuse.edit` and `diffuse.animate`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.cli import add_device, argument_group, check_audio, quiet_libraries

METADATA_KEY = "soundprompt"  # PNG text key of the generation metadata
# Defaults of the inputs that only some of the commands have options for.
DEFAULT_INPUTS = {
    "num_images": 1, "height": None, "width": None, "level_scales": None,
    "audio_interval": (0.0, 1.0), "by_level": False,
}  # fmt: skip
INPUT_OPTIONS = (
    "prompt", "negative_prompt", "audio_scale", "guidance_scale", "audio_guidance_scale",
    "num_inference_steps", "seed", "relation",
)  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the models to a parser.

    Args:
        parser: Parser of a command.
    """
    group = argument_group(parser, "model")
    group.add_argument(
        "--base_model", default="mini", help="Diffusers pipeline: short name, folder or Hub id."
    )
    group.add_argument(
        "--encoder", default="runs/align/mini", help="Audio encoder: folder or Hub id."
    )
    group.add_argument(
        "--adapter", action="append", metavar="FOLDER",
        help="Audio adapter folder; repeat to combine several.",
    )  # fmt: skip
    group.add_argument(
        "--adapter_weights", nargs="+", type=float, metavar="WEIGHT", help="Weight of each adapter."
    )
    group.add_argument(
        "--scheduler",
        help="Scheduler: ddim, dpm, euler, euler-a, pndm or unipc. "
        "Defaults to the base model's own.",
    )
    add_device(group)
    group.add_argument(
        "--torch_dtype", choices=("float32", "float16", "bfloat16"),
        help="Data type of the base model. Defaults to float16 on GPUs and float32 elsewhere.",
    )  # fmt: skip


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a generation that all commands share to a parser.

    Args:
        parser: Parser of a command.
    """
    group = argument_group(parser, "generation")
    group.add_argument(
        "--prompt",
        help='Text prompt; pass "" to condition on audio only (requires an adapter).',
    )
    group.add_argument("--negative_prompt", help="Negative prompt.")
    group.add_argument(
        "--audio_scale", type=float, default=1.0,
        help="Strength of the audio conditioning; 0 disables it.",
    )  # fmt: skip
    group.add_argument(
        "--guidance_scale", type=float, default=5.0, help="Classifier-free guidance scale."
    )
    group.add_argument(
        "--audio_guidance_scale", type=float,
        help="Separate guidance scale for the audio (requires an adapter).",
    )  # fmt: skip
    group.add_argument(
        "--num_inference_steps", type=int, default=20, help="Number of denoising steps."
    )
    group.add_argument(
        "--seed", type=int, default=0, help="Seed of the first image; image i uses seed + i."
    )
    group.add_argument(
        "--relation", default="auto",
        help="How to combine prompt and audio: auto, none, matching, complementary, creative or "
        "contradictory.",
    )  # fmt: skip


def add_output_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--output_dir` to a parser.

    Args:
        parser: Parser of a command.
    """
    argument_group(parser, "output").add_argument(
        "--output_dir", type=Path, default=Path("images"), metavar="FOLDER",
        help="Output directory of the images.",
    )  # fmt: skip


def generation_kwargs(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_generation_options` as arguments of a `SoundPipeline` call."""
    return {name: getattr(options, name) for name in INPUT_OPTIONS}


def load_pipeline(options: argparse.Namespace) -> Any:
    """Load the `SoundPipeline` that the options of `add_model_options` select.

    Raises:
        ValueError: If a model does not exist, or the models do not belong together.
    """
    quiet_libraries()
    import torch

    from diffuse.pipelines.sound_pipeline import SoundPipeline

    folders = options.adapter or []
    names = ["adapter"] if len(folders) == 1 else [f"adapter-{i + 1}" for i in range(len(folders))]
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
    """Validate inputs and options before any model is loaded, the fastest checks first.

    Args:
        options: Options of `add_model_options` and `add_generation_options`.
        audio: Audio files.
        more: Other arguments of the `SoundPipeline` call that differ from its defaults.

    Raises:
        AudioError: If an audio file cannot be opened.
        ValueError: If an adapter does not exist, or an option is out of range.
    """
    check_audio(audio)
    folders, weights = options.adapter or [], options.adapter_weights
    if weights is not None and len(weights) != len(folders):
        raise ValueError(
            f"--adapter_weights takes one weight per adapter: got {len(weights)} weights for "
            f"{len(folders)} adapters"
        )
    if not all(map(math.isfinite, weights or [])):
        raise ValueError(f"--adapter_weights must be finite numbers, not {weights}")
    if options.relation not in ("auto", "none") and not (options.prompt or "").strip():
        raise ValueError(f"--relation {options.relation} requires a prompt: give a --prompt")
    from diffuse.models.saving import read_config
    from diffuse.pipelines.inputs import check_inputs
    from diffuse.pipelines.loading import check_scheduler

    check_scheduler(options.scheduler, options.num_inference_steps)
    for folder in folders:
        read_config(Path(folder))
    inputs = DEFAULT_INPUTS | generation_kwargs(options) | more
    check_inputs(inputs, inputs.pop("by_level"), bool(folders))


def check_audio_weights(audio: Any, weights: Sequence[float] | None) -> None:
    """Check that weights and levels match the audio files.

    Args:
        audio: List of audio files, or a mapping from levels to audio files.
        weights: Weight of each audio file, or None.

    Raises:
        ValueError: If the number of weights is not that of the files, or a level does not exist.
    """
    from diffuse.pipelines.inputs import AudioInputs

    AudioInputs.from_inputs(audio, weights)


def save_images(images: Sequence[Any], metadata: dict[str, Any], output_dir: Path) -> list[Path]:
    """Save images as `seed-N.png`, with their metadata in the PNG text.

    Overwritten files are reported on standard error.

    Args:
        images: Images (PIL) of consecutive seeds.
        metadata: Generation metadata of the `SoundPipeline` output.
        output_dir: Output folder, created if it does not exist.

    Returns:
        The paths of the files.
    """
    from PIL.PngImagePlugin import PngInfo

    output_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(images):
        seed = metadata["seed"] + i
        info = PngInfo()
        image_metadata = {**metadata, "seed": seed, "num_images": 1}
        info.add_text(METADATA_KEY, json.dumps(image_metadata, sort_keys=True))
        path = output_dir / f"seed-{seed}.png"
        exists = path.exists()
        image.save(path, pnginfo=info)
        if exists:
            print(f"overwrote {path}", file=sys.stderr)
        paths.append(path)
    return paths


def print_results(output: Any, paths: Sequence[Path]) -> None:
    """Print the relation of prompt and audio, and the paths of the images.

    Args:
        output: A `SoundPipelineOutput`.
        paths: Paths of its images.
    """
    if output.relation is not None:
        print(f"{output.relation.name}: {output.relation.description}")
    for path in paths:
        print(path)
