"""Three-fold cross-validation on real audio: `python -m benchmarks.esc10 --dataset FOLDER`.

Trains align/recipes/esc10.yaml on two folds and evaluates on the third, for every fold and seed.
Finished runs are not repeated, so an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.cli import DefaultsHelpFormatter
from align.evaluation.statistics import Estimate

FIGURES = (
    "class_accuracy",
    "centered_cosine",
    "centered_cosine_nearest_caption",
    "image_accuracy",
    "image_accuracy_text",
    "image_accuracy_nearest_caption",
)


def _run(options: argparse.Namespace, fold: int, seed: int, rest: Sequence[str]) -> dict[str, Any]:
    """Train without one fold and evaluate on it; returns the metrics."""
    from align.train import main as train

    folder = options.output_dir / f"fold{fold}-seed{seed}"
    others = [str(f) for f in options.folds if f != fold]
    command = [
        *(options.recipe, "--dataset", options.dataset, "--output_dir", str(folder)),
        *("--folds", *others, "--eval_folds", str(fold), "--seed", str(seed), *rest),
    ]
    command_file = folder / "command.json"
    if (folder / "metrics.json").exists():
        if json.loads(command_file.read_text()) != command:
            raise SystemExit(f"{folder} has a run with other options: give another --output_dir")
    else:
        train(command)
        command_file.write_text(json.dumps(command))
    return json.loads((folder / "metrics.json").read_text())


def summarize(runs: Sequence[dict[str, Any]], seeds: int) -> dict[str, Estimate]:
    """Average over folds and seeds; the interval counts each clip once, not once per seed.

    Args:
        runs: Metrics of the runs.
        seeds: Number of seeds.
    """
    found = {}
    for name in FIGURES:
        if any(name not in run for run in runs):
            continue
        weights = [run[f"{name}_n"] for run in runs]
        value = sum(run[name] * n for run, n in zip(runs, weights, strict=True)) / sum(weights)
        cases = round(sum(weights) / seeds)
        if name.startswith("centered_cosine"):
            # Not a proportion: the interval is the range over the runs.
            found[name] = Estimate(value, *_range([run[name] for run in runs]), cases)
            continue
        share = Estimate.proportion(
            [True] * round(value * cases) + [False] * round((1 - value) * cases)
        )
        found[name] = Estimate(value, share.low, share.high, cases)
    return found


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the missing parts and print the metrics; unknown options go to align.train."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.esc10", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--dataset", required=True, help="Folder with metadata.csv and a column fold."
    )
    parser.add_argument("--recipe", default="esc10", help="Recipe of align.train.")
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3], help="Folds.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Random seeds.")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/benchmarks/esc10"), help="Output directory."
    )
    options, rest = parser.parse_known_args(arguments)
    runs = [_run(options, fold, seed, rest) for seed in options.seeds for fold in options.folds]
    summary = summarize(runs, len(options.seeds))
    print(f"\n{options.recipe}, folds {options.folds}, seeds {options.seeds} {' '.join(rest)}")
    for name, figure in summary.items():
        print(f"{name:<32} {figure.value:.3f}  [{figure.low:.3f}, {figure.high:.3f}]  {figure.n}")
    for seed in options.seeds:
        part = [r for r, s in zip(runs, _seeds(options), strict=True) if s == seed]
        one = summarize(part, 1)
        print(f"seed {seed}: " + ", ".join(f"{k} {v.value:.3f}" for k, v in one.items()))


def _seeds(options: argparse.Namespace) -> list[int]:
    return [seed for seed in options.seeds for _ in options.folds]


if __name__ == "__main__":
    main()
