"""Three-fold cross-validation of a UNet that hears: `python -m benchmarks.esc10_diffuse --dataset F`.

For every fold an encoder is aligned on the other two (align/recipes/esc10.yaml; taken from
--encoders where `benchmarks.esc10` trained it before), the UNet learns to hear on them
(diffuse/recipes/esc10.yaml) and both meet the third. ESC-10 has no pictures: every recording gets
some that are drawn by its label, with captions of which two of three name the time of day alone.
Runs that are already measured are not repeated, so an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    """Writes the folder of pairs, once: pictures, and metadata.jsonl that names the recordings.

    Raises:
        ValueError: the data have a label that the miniature cannot draw.
    """
    import numpy as np

    from soundprompt.mini.captions import caption, class_caption, scene_caption
    from soundprompt.mini.images_per_clip import render
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
            raise ValueError(f"{dataset} has the label {label!r}, which the miniature cannot draw")
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
    """The encoder that never heard a fold, trained where it is missing."""
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
    """Trains without one fold and measures on it; returns its metrics."""
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
    noted = folder / "command.json"
    if (folder / "metrics.json").exists():
        if json.loads(noted.read_text()) != command:
            raise SystemExit(f"{folder} comes from other options: give another --out")
    else:
        train(command)
        noted.write_text(json.dumps(command))
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def summarize(runs: Sequence[dict[str, Any]], num_clips: int) -> dict[str, Estimate]:
    """Shares over all folds; a recording drawn several times counts once in the interval."""
    found = {}
    for name in FIGURES:
        if any(name not in run for run in runs):
            continue
        counts = [run[f"{name}_n"] for run in runs]
        value = sum(run[name] * n for run, n in zip(runs, counts, strict=True)) / sum(counts)
        cases = min(num_clips, sum(counts))
        right = round(value * cases)
        share = Estimate.proportion([True] * right + [False] * (cases - right))
        found[name] = Estimate(value, share.low, share.high, cases)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing and prints the table; unknown flags go to diffuse.train."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.esc10_diffuse", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--dataset", type=Path, required=True, help="ESC-10: metadata.csv with folds"
    )
    parser.add_argument("--recipe", default="esc10")
    parser.add_argument("--align_recipe", default="esc10")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_images", type=int, default=80, help="drawn and judged a fold")
    parser.add_argument("--images_per_clip", type=int, default=8, help="trained on a recording")
    parser.add_argument("--encoders", type=Path, default=Path("runs/benchmarks/esc10"))
    parser.add_argument("--output_dir", type=Path, default=Path("runs/benchmarks/esc10-diffuse"))
    options, rest = parser.parse_known_args(arguments)
    runs = [_run(options, fold, rest) for fold in options.folds]
    summary = summarize(runs, options.num_images * len(options.folds))
    print(f"\n{options.recipe}, folds {options.folds}, seed {options.seed} {' '.join(rest)}")
    for name, figure in summary.items():
        print(f"{name:<32} {figure.value:.3f}  [{figure.low:.3f}, {figure.high:.3f}]  {figure.n}")


if __name__ == "__main__":
    main()
