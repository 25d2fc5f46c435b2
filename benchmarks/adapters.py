"""Compare all adapters with both `mini` backbones: `python -m benchmarks.adapters`.

Each adapter is trained on the same clips, saved, loaded again, and generates images with the `mini`
pipeline. With --by mini, all adapters are trained by the recipe `mini`; with --by recipe, each by
its own recipe (loss, learning rate, batch size, steps, trained part of the backbone), at the sizes
of the `mini` models. Finished runs are not repeated, so an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import DefaultsHelpFormatter

if TYPE_CHECKING:
    from align.evaluation.evaluator import AlignmentEvaluator
    from align.models.heads import Head
    from align.prompts.embeds import PromptEmbeds
    from align.training.run import TrainingRun


RECIPES = {
    "linear": "art-from-audio",
    "mlp": "clap2diffusion",
    "conv": "audio2img",
    "multiscale": "multiscale",
    "sonic": "sonic",
    "hierarchical": "hierarchical",
    "resampler": "audiocaps",
}
KINDS = tuple(RECIPES)
BACKBONES = ("mini-clap", "mini-w2v-bert")
# SonicDiffusion's sizes are for prompt embeds six times as wide.
SMALLER = {"sonic": ("--adapter_head_width", "8")}
# Sizes that replace those of the recipes, which are for full-size text encoders.
MINI_SIZES = {
    "conv": ("--adapter_width", "256", "--adapter_heads", "4"),
    "multiscale": ("--adapter_width", "256"),
    "hierarchical": ("--adapter_width", "256", "--adapter_heads", "4"),
    "resampler": ("--adapter_width", "256", "--adapter_heads", "4", "--adapter_depth", "2"),
}

# In their recipes, the only audio token is CLAP's pooled embedding.
POOLED = ("linear", "mlp", "sonic")


def write_clips(folder: Path, split: str, rows: int) -> Path:
    """Write the first synthetic clips of a split as WAV files with metadata.csv.

    Args:
        folder: Output directory.
        split: "train" or "test".
        rows: Number of clips.
    """
    import csv

    import soundfile

    from soundprompt.mini.dataset import singles

    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "metadata.csv"
    if table.exists():
        return folder
    lines = []
    for i, row in enumerate(singles(split, rows)):
        audio = row["audio"]
        soundfile.write(folder / f"{i}.wav", audio["array"], audio["sampling_rate"])
        lines.append((f"{i}.wav", row["caption"], row["label"]))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption", "label"), *lines])
    return folder


def _trained(command: Sequence[str]) -> tuple[TrainingRun, float]:
    """Train and save as align.train does; returns the run and the CPU seconds of the training."""
    from align.config.options import parse_options
    from align.training.run import TrainingRun

    run = TrainingRun.from_options(parse_options("benchmarks.adapters", command))
    # Computes features and tokens, once for all adapters of a backbone.
    run._trainer()
    start = time.process_time()
    run.train()
    return run, time.process_time() - start


def _command(options: argparse.Namespace, kind: str, backbone: str, rest: list[str]) -> list[str]:
    pooled = kind in POOLED and backbone == "mini-clap"
    by_recipe = options.by == "recipe"
    sizes = MINI_SIZES.get(kind, ()) if by_recipe else ()
    return [
        *((RECIPES[kind], "--base_model", "mini") if by_recipe else ("mini",)),
        *("--backbone", backbone, "--adapter", kind, *SMALLER.get(kind, ()), *sizes),
        # Wav2Vec2-BERT has no pooled embedding, unlike CLAP in the recipe.
        *(("--audio_tokens", "pooled" if pooled else "all") if pooled or by_recipe else ()),
        *("--dataset", str(options.output_dir / "train")),
        *("--eval_dataset", str(options.output_dir / "test")),
        *("--num_train_epochs", str(options.epochs), "--seed", str(options.seed)),
        *("--num_images", "0", "--num_sheet_samples", "0"),
        *("--image_classifier", "none", "--use_cpu", "true"),
        *("--eval_strategy", "no", "--save_strategy", "no", "--disable_tqdm", "true"),
        *("--output_dir", str(options.output_dir / f"{backbone}-{kind}"), *rest),
    ]


def _run(command: list[str]) -> dict[str, Any]:
    """Train, save, load and evaluate the embeds; or load the metrics of a finished run."""
    from align.evaluation.evaluator import AlignmentEvaluator
    from align.models.encoder import load_encoder

    folder = Path(command[command.index("--output_dir") + 1])
    cached = folder / "figures.json"
    if cached.exists():
        found: dict[str, Any] = json.loads(cached.read_text())
        if found["command"] != command:
            raise SystemExit(f"{folder} has a run with other options: give another --output_dir")
        return found
    run, seconds = _trained(command)
    encoder = load_encoder(str(folder))
    evaluator = AlignmentEvaluator.from_encoder(encoder, run.space, run.eval_features, run.record)
    figures = evaluator.embed_metrics()
    accuracy = figures["class_accuracy"]
    found = {
        "command": command,
        "backbone": command[command.index("--backbone") + 1],
        "adapter": command[command.index("--adapter") + 1],
        "parameters": sum(p.numel() for p in evaluator.head.adapter.parameters()),
        "cpu_s": seconds,
        "class_accuracy": [accuracy.value, accuracy.low, accuracy.high],
        "centered_cosine": figures["centered_cosine"].value,
        "centered_cosine_oracle": figures["centered_cosine_oracle"].value,
    }
    cached.write_text(json.dumps(found, indent=1))
    return found


def _image_accuracy(run: dict[str, Any], out: Path, count: int) -> list[float]:
    """Image accuracy of images generated from audio, with its interval."""
    folder = out / f"{run['backbone']}-{run['adapter']}"
    cached = folder / f"images-{count}.json"
    if not cached.exists():
        evaluator = _evaluator(folder, out / "test", count)
        labels = evaluator.audio_features.labels
        cached.write_text(
            json.dumps(_score_images(evaluator.prompt_embeds(range(count)), evaluator.head, labels))
        )
        text = out / f"text-{count}.json"
        if not text.exists():
            prompts = evaluator.caption_prompt_embeds(evaluator.audio_features.captions)
            text.write_text(json.dumps(_score_images(prompts, evaluator.head, labels)))
    found: list[float] = json.loads(cached.read_text())
    return found


def _evaluator(folder: Path, test: Path, count: int) -> AlignmentEvaluator:
    """Evaluator of a saved encoder on clips spread over the test set."""
    from align.data.loading import load_rows
    from align.evaluation.evaluator import AlignmentEvaluator
    from align.hub.run_record import load
    from align.models.encoder import load_encoder
    from align.preprocessing.features import extract_features
    from align.prompts.space import PromptSpace

    encoder = load_encoder(str(folder))
    rows = load_rows(str(test), "test")
    rows = rows.select([i * len(rows) // count for i in range(count)])
    features = extract_features(encoder.processor, rows, title="test features")
    space = PromptSpace.from_pretrained("mini")
    return AlignmentEvaluator.from_encoder(encoder, space, features, load(str(folder))[1])


def _score_images(
    prompts: PromptEmbeds, head: Head, labels: Sequence[str]
) -> tuple[float, float, float]:
    """Generate images, with the same noise for all adapters, and compute the image accuracy."""
    from align.evaluation.generation import ImageGenerator
    from align.evaluation.statistics import Estimate
    from align.registry import IMAGE_CLASSIFIERS, lookup

    image_generator = ImageGenerator.from_pretrained(
        "mini", num_inference_steps=20, guidance_scale=5.0
    )
    images = image_generator.generate(
        prompts, head.unconditional(len(labels)), list(range(len(labels)))
    )
    correct = lookup(IMAGE_CLASSIFIERS, "mini")().is_correct(images, labels)
    accuracy = Estimate.proportion(correct)
    return accuracy.value, accuracy.low, accuracy.high


def _percent(found: Sequence[float]) -> str:
    value, low, high = (100 * part for part in found)
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def as_table(runs: Sequence[dict[str, Any]], text: Sequence[float]) -> str:
    """Format the runs as a Markdown table; the last rows are the upper bounds.

    Args:
        runs: Metrics of the runs.
        text: Image accuracy of the ground-truth captions with its interval; empty if not measured.
    """
    lines = [
        "| backbone | adapter | parameters | CPU seconds | class accuracy "
        "| centered cosine | image accuracy |",
        "| --- | --- | ---: | ---: | --- | ---: | --- |",
    ]
    for run in runs:
        accuracy = _percent(run["image_accuracy"]) if "image_accuracy" in run else ""
        lines.append(
            f"| {run['backbone']} | {run['adapter']} | {run['parameters']:,} | {run['cpu_s']:.0f} "
            f"| {_percent(run['class_accuracy'])} | {run['centered_cosine']:.3f} | {accuracy} |"
        )
    best = runs[0]["centered_cosine_oracle"]
    accuracy = _percent(text) if text else ""
    lines.append(f"| | oracle | | | 100% | {best:.3f} | |")
    lines.append(f"| | ground-truth captions | | | | | {accuracy} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the missing parts and print the table; unknown options are passed to align.train."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapters", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--adapters", nargs="+", choices=KINDS, default=list(KINDS), help="Adapters to train."
    )
    parser.add_argument(
        "--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="Backbones."
    )
    parser.add_argument(
        "--by",
        choices=("mini", "recipe"),
        default="mini",
        help="Train all adapters by the recipe mini, or each by its own recipe.",
    )
    parser.add_argument("--rows", type=int, default=1500, help="Number of training clips.")
    parser.add_argument("--test_rows", type=int, default=250, help="Number of test clips.")
    parser.add_argument("--epochs", type=int, default=5, help="Number of training epochs.")
    parser.add_argument(
        "--num_images", type=int, default=60, help="Number of images per adapter; 0 disables it."
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument(
        "--output_dir",
        type=Path,
        help="Output directory. Defaults to runs/benchmarks/adapters[-by-recipe].",
    )
    options, rest = parser.parse_known_args(arguments)
    if options.output_dir is None:
        suffix = "-by-recipe" if options.by == "recipe" else ""
        options.output_dir = Path(f"runs/benchmarks/adapters{suffix}")
    if not 0 <= options.num_images <= options.test_rows:
        parser.error("--num_images must be between 0 and --test_rows")
    write_clips(options.output_dir / "train", "train", options.rows)
    write_clips(options.output_dir / "test", "test", options.test_rows)
    pairs = [(kind, backbone) for backbone in options.backbones for kind in options.adapters]
    runs = [_run(_command(options, *pair, rest)) for pair in pairs]
    text = []
    if options.num_images:
        for run in runs:
            run["image_accuracy"] = _image_accuracy(run, options.output_dir, options.num_images)
        text = json.loads((options.output_dir / f"text-{options.num_images}.json").read_text())
    print(f"\n{options.rows} clips, {options.epochs} epochs, seed {options.seed}:\n")
    print(as_table(runs, text))


if __name__ == "__main__":
    main()
