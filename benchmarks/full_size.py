"""Full-size checkpoints without the Hub: `python -m benchmarks.full_size --output_dir FOLDER`.

Creates Stable Diffusion 1.5, the text encoders of 2.1 and SDXL, CLAP and w2v-bert-2.0 with random
weights in the layout of the Hub (about 8 GB), and runs the package on them: load, train two steps,
save, load, generate; and every recipe of align.train for two steps. Each row is a separate process;
its time and peak memory are printed. The images are meaningless; the benchmark tests that every
file loads and every shape fits.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from align.cli import CommandParser
from align.config.parser import recipe_folder

SD15, SDXL = "stable-diffusion-v1-5", "stable-diffusion-xl-base-1.0"
CLAP, W2V_BERT = "larger_clap_music_and_speech", "w2v-bert-2.0"
# Both checkpoints have the same architecture.
SAME = {"larger_clap_general": CLAP}
SUITE = recipe_folder("align")
# Sorted, so that hierarchical-weights runs after hierarchical, which initializes it.
RECIPES = sorted({path.stem for path in SUITE.glob("*.yaml")} - {"mini", "esc10"})


def build(folder: Path) -> str:
    """Create the checkpoints and the clips.

    Args:
        folder: Output directory.
    """
    from benchmarks.hub_layout import build

    build(folder)
    if not (folder / "sounds" / "metadata.csv").exists():
        save_clips(folder / "sounds")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 2**30:.1f} GiB on disk"


def save_clips(folder: Path) -> None:
    """Write four synthetic clips with captions.

    Args:
        folder: Output directory.
    """
    import numpy as np
    import soundfile

    from soundprompt.mini.captions import class_caption
    from soundprompt.mini.sounds import SAMPLE_RATE, recording
    from soundprompt.mini.world import CLASSES

    folder.mkdir()
    lines = ["file_name,caption,label"]
    for i, label in enumerate(CLASSES[:4]):
        audio = recording(label, None, np.random.default_rng(i))
        soundfile.write(folder / f"{i}.wav", audio, SAMPLE_RATE)
        lines.append(f"{i}.wav,{class_caption(label)},{label}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def encode_text(folder: Path, base_model: str) -> str:
    """Encode prompts with a base model.

    Args:
        folder: Output directory.
        base_model: Name of the base model.
    """
    from align.prompts.space import PromptSpace

    prompts = PromptSpace.from_pretrained(str(folder / base_model)).encode(["abc def", "ghi"])
    pooled = "" if prompts.pooled is None else f" and {tuple(prompts.pooled.shape)}"
    return f"embeds {tuple(prompts.embeds.shape)}{pooled}"


def load_whole(folder: Path) -> str:
    """Load SD1.5 with its text encoder in float16.

    Args:
        folder: Output directory.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    from align.prompts.pipelines import PipelineSpec

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder / SD15, dtype=torch.float16, safety_checker=None, feature_extractor=None
    )
    return f"{PipelineSpec.from_pipeline(pipeline).expected}; weights {_weights(pipeline):.2f} GiB"


def load_without_text_encoder(folder: Path) -> str:
    """Load SD1.5 without its text encoder in float16.

    Args:
        folder: Output directory.
    """
    import torch

    from align.prompts.loading import load_image_side
    from align.prompts.pipelines import PipelineSpec

    pipeline = load_image_side(str(folder / SD15), dtype=torch.float16)
    return f"{PipelineSpec.from_pipeline(pipeline).expected}; weights {_weights(pipeline):.2f} GiB"


def sdxl_text_weights(folder: Path) -> str:
    """Load both text encoders of SDXL in float16.

    Args:
        folder: Output directory.
    """
    import torch

    from align.prompts.loading import load_text_side

    pipeline = load_text_side(str(folder / SDXL), dtype=torch.float16)
    return f"weights {_weights(pipeline):.2f} GiB"


def train(folder: Path, base_model: str, backbone: str, trained: str) -> str:
    """Train two steps with align.train and load the saved encoder.

    Args:
        folder: Output directory.
        base_model: Name of the base model.
        backbone: Name of the backbone.
        trained: Value of --train_backbone.
    """
    from align.train import main

    out = folder / "runs" / f"{backbone}-{base_model}"
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    main([
        "--base_model", str(folder / base_model), "--backbone", str(folder / backbone),
        "--dataset", str(folder / "sounds"), "--train_backbone", trained, "--cache", "false",
        "--num_train_epochs", "1", "--per_device_train_batch_size", "2", "--num_images", "0",
        "--num_sheet_samples", "0", "--image_classifier", "none", "--eval_strategy", "no",
        "--save_strategy", "no", "--num_workers", "1", "--logging_steps", "1",
        "--output_dir", str(out),
    ])  # fmt: skip
    return f"{time.monotonic() - start:.0f} s in align.train; {_check_encoder(out, folder)}"


def _check_encoder(run: Path, folder: Path) -> str:
    """Check that a saved encoder returns finite embeds; returns their shape."""
    import torch

    from align.models.encoder import AudioPromptEncoder

    encoder = AudioPromptEncoder.from_pretrained(run)
    prompt = encoder.encode_prompt(str(folder / "sounds" / "0.wav"))
    assert all(bool(torch.isfinite(value).all()) for value in prompt.values()), "not finite"
    return str(tuple(prompt["prompt_embeds"].shape))


def run_recipe(folder: Path, name: str) -> str:
    """Run two steps of a recipe on four clips with the checkpoints of this benchmark.

    Args:
        folder: Output directory.
        name: Name of the recipe.
    """
    import yaml

    from align.train import main

    own = yaml.safe_load((SUITE / f"{name}.yaml").read_text())
    out = folder / "runs" / name
    shutil.rmtree(out, ignore_errors=True)
    init_from = own.get("init_from")
    init_args = ("--init_from", _local(folder / "runs", init_from)) if init_from else (
        "--backbone", _local(folder, own["backbone"]))  # fmt: skip
    main([
        name, "--base_model", _local(folder, own["base_model"]), *init_args,
        "--dataset", str(folder / "sounds"), "--max_steps", "2", "--cache", "false",
        "--num_sheet_samples", "0", "--eval_strategy", "no", "--save_strategy", "no",
        "--num_workers", "1", "--logging_steps", "1", "--output_dir", str(out),
    ])  # fmt: skip
    return _check_encoder(out, folder)


def _local(folder: Path, name: str) -> str:
    last = name.rpartition("/")[2]
    return str(folder / SAME.get(last, last))


def generate_image(folder: Path) -> str:
    """Generate a 256x256 image with SD1.5 in bfloat16 and a saved encoder.

    Args:
        folder: Output directory.
    """
    import torch

    from align.models.encoder import AudioPromptEncoder
    from align.prompts.loading import load_image_side

    pipeline = load_image_side(str(folder / SD15), dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    encoder = AudioPromptEncoder.from_pretrained(folder / "runs" / f"{CLAP}-{SD15}")
    prompt = encoder.encode_prompt(str(folder / "sounds" / "0.wav"), pipeline=pipeline)
    start = time.monotonic()
    generator = torch.Generator().manual_seed(0)
    image = pipeline(
        **prompt, height=256, width=256, num_inference_steps=2, generator=generator
    ).images[0]
    return f"{image.size[0]}x{image.size[1]}, {time.monotonic() - start:.0f} s for two steps"


ROWS: dict[str, Callable[[Path], str]] = {
    "build all": build,
    "SD1.5: encode text": lambda folder: encode_text(folder, SD15),
    "SDXL: encode text": lambda folder: encode_text(folder, SDXL),
    "SD1.5 fp16, with text encoder": load_whole,
    "SD1.5 fp16, without text encoder": load_without_text_encoder,
    "SDXL fp16, text encoders only": sdxl_text_weights,
    "CLAP -> SD1.5, backbone frozen": lambda folder: train(folder, SD15, CLAP, "none"),
    "CLAP -> SDXL, last layer trained": lambda folder: train(folder, SDXL, CLAP, "1"),
    "w2v-bert-2.0 -> SD1.5, last layer trained": lambda f: train(f, SD15, W2V_BERT, "1"),
    "CLAP -> SD1.5, generation": generate_image,
} | {f"recipe {name}": partial(run_recipe, name=name) for name in RECIPES}


def _weights(pipeline: object) -> float:
    import torch

    parts = getattr(pipeline, "components", {}).values()
    models = [part for part in parts if isinstance(part, torch.nn.Module)]
    return sum(w.numel() * w.element_size() for m in models for w in m.parameters()) / 2**30


def _row(folder: Path, name: str) -> dict[str, object]:
    """Run a row in a separate process."""
    command = [sys.executable, "-m", "benchmarks.full_size"]
    command += ["--output_dir", str(folder), "--row", name]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"s": time.monotonic() - start}


def main(given: Sequence[str] | None = None) -> None:
    """Run all rows, or the given one, and print them as a table."""
    parser = CommandParser("python -m benchmarks.full_size", description=__doc__)
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="Output directory; needs 8 GB of disk space."
    )
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.row:
        result = ROWS[options.row](options.output_dir)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"result": result, "peak_gib": peak}))
        return
    options.output_dir.mkdir(parents=True, exist_ok=True)
    print("| | seconds | peak GiB | |\n| --- | --- | --- | --- |", flush=True)
    for name in ROWS:
        row = _row(options.output_dir, name)
        print(f"| {name} | {row['s']:.0f} | {row['peak_gib']:.1f} | {row['result']} |", flush=True)


if __name__ == "__main__":
    main()
