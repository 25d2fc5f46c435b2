"""Three-fold cross-validation of audio adapters: `python -m benchmarks.esc10_diffuse --dataset F`.

For every fold, an encoder is trained on the other two (align/recipes/esc10.yaml; --encoders may
contain those of `benchmarks.esc10`), then an audio adapter (diffuse/recipes/esc10.yaml), and both
are evaluated on the fold. ESC-10 has no images: every clip gets rendered images of its class, with
captions of which two of three name the time of day only. Finished runs are not repeated, so an
interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.cli import DefaultsHelpFormatter
from align.evaluation.statistics import Estimate

FIGURES = (
    "object_accuracy",
    "scene_accuracy",
    "object_accuracy_scale0",
    "object_accuracy_embeds_only",
    "text_accuracy_before",
    "text_accuracy_after",
)
COLUMNS = (
    "file_name", "image", "captions", "prompt", "scene", "label", "fold", "foreground",
    "background", "ambience",
)  # fmt: skip


def write_pairs(dataset: Path, output_dir: Path, images_per_clip: int) -> Path:
    """Write rendered images and metadata.jsonl for the clips of a dataset, unless they exist.

    Args:
        dataset: Folder with metadata.csv.
        output_dir: Output directory.
        images_per_clip: Number of images per clip.

    Raises:
        ValueError: A label is not one of the `mini` classes.
    """
    import numpy as np

    from soundprompt.mini.captions import caption, class_caption, scene_caption
    from soundprompt.mini.pictures import render
    from soundprompt.mini.world import CLASSES, random_view

    table = output_dir / "metadata.jsonl"
    if table.exists():
        return output_dir
    output_dir.mkdir(parents=True, exist_ok=True)
    with (dataset / "metadata.csv").open(newline="", encoding="utf-8") as file:
        clips = list(csv.DictReader(file))
    lines = []
    for i, row in enumerate(clips):
        label = row["label"].replace("_", " ")
        if label not in CLASSES:
            raise ValueError(
                f"{dataset} has the label {label!r}, expected one of {', '.join(CLASSES)}"
            )
        for k in range(images_per_clip):
            rng = np.random.default_rng([20_000_001, i, k])
            view = random_view(rng, near=label, far_prob=0.0)
            name = f"{i:04d}-{k}.png"
            render(view, rng).save(output_dir / name)
            scenes = [scene_caption(view.scene, rng) for _ in range(2)]
            texts = [caption(view, rng, scene=True), *scenes]
            values = (
                str((dataset / row["file_name"]).resolve()), name, texts, scenes[-1], view.scene,
                label, row["fold"], class_caption(label), "", "",
            )  # fmt: skip
            lines.append(json.dumps(dict(zip(COLUMNS, values, strict=True))))
    table.write_text("\n".join(lines) + "\n")
    return output_dir


def _encoder(options: argparse.Namespace, fold: int, others: Sequence[str]) -> Path:
    """Encoder that was trained without a fold; trained if it is missing."""
    from align.train import main as align

    folder: Path = options.encoders / f"fold{fold}-seed{options.seed}"
    if not (folder / "metrics.json").exists():
        align([
            options.align_recipe, "--dataset", str(options.dataset), "--output_dir", str(folder),
            "--folds", *others, "--eval_folds", str(fold), "--seed", str(options.seed),
            "--num_images", "0", "--num_sheet_samples", "0",
        ])  # fmt: skip
    return folder


def _run(options: argparse.Namespace, fold: int, rest: Sequence[str]) -> dict[str, Any]:
    """Train without one fold and evaluate on it; returns the metrics."""
    from diffuse.train import main as train

    folder = options.output_dir / f"fold{fold}-seed{options.seed}"
    others = [str(f) for f in options.folds if f != fold]
    pairs = write_pairs(options.dataset, options.output_dir / "pairs", options.images_per_clip)
    encoder = _encoder(options, fold, others)
    command = [
        options.recipe, "--dataset", str(pairs), "--encoder", str(encoder),
        "--output_dir", str(folder), "--folds", *others, "--eval_folds", str(fold),
        "--num_images", str(options.num_images), "--seed", str(options.seed), *rest,
    ]  # fmt: skip
    command_file = folder / "command.json"
    if (folder / "metrics.json").exists():
        if json.loads(command_file.read_text()) != command:
            raise SystemExit(f"{folder} has a run with other options: give another --output_dir")
    else:
        train(command)
        command_file.write_text(json.dumps(command))
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def summarize(runs: Sequence[dict[str, Any]], num_clips: int) -> dict[str, Estimate]:
    """Average over all folds; the interval counts a clip with several images once.

    Args:
        runs: Metrics of the folds.
        num_clips: Number of clips.
    """
    found = {}
    for name in FIGURES:
        if any(name not in run for run in runs):
            continue
        counts = [run[f"{name}_n"] for run in runs]
        value = sum(run[name] * n for run, n in zip(runs, counts, strict=True)) / sum(counts)
        cases = min(num_clips, sum(counts))
        correct = round(value * cases)
        share = Estimate.proportion([True] * correct + [False] * (cases - correct))
        found[name] = Estimate(value, share.low, share.high, cases)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the missing parts and print the metrics; unknown options go to diffuse.train."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.esc10_diffuse", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--dataset", type=Path, required=True, help="Folder with metadata.csv and a column fold."
    )
    parser.add_argument("--recipe", default="esc10", help="Recipe of diffuse.train.")
    parser.add_argument("--align_recipe", default="esc10", help="Recipe of align.train.")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3], help="Folds.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument("--num_images", type=int, default=80, help="Number of images per fold.")
    parser.add_argument("--images_per_clip", type=int, default=8, help="Images per training clip.")
    parser.add_argument(
        "--encoders", type=Path, default=Path("runs/benchmarks/esc10"),
        help="Folder with the encoders of the folds; missing ones are trained.",
    )  # fmt: skip
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/benchmarks/esc10-diffuse"),
        help="Output directory.",
    )  # fmt: skip
    options, rest = parser.parse_known_args(arguments)
    runs = [_run(options, fold, rest) for fold in options.folds]
    summary = summarize(runs, options.num_images * len(options.folds))
    print(f"\n{options.recipe}, folds {options.folds}, seed {options.seed} {' '.join(rest)}")
    for name, figure in summary.items():
        print(f"{name:<32} {figure.value:.3f}  [{figure.low:.3f}, {figure.high:.3f}]  {figure.n}")


if __name__ == "__main__":
    main()
