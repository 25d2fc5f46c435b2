"""Compare routings and options of the levels: `python -m benchmarks.levels`.

Every variant is trained on the `mini` models with `python -m diffuse.train` and evaluated with
`python -m diffuse.evaluate`: clips with one source, clips with two, and mixtures with one level
replaced, with the same seeds. Finished runs are not repeated, so an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.cli import DefaultsHelpFormatter

# Options that differ from the default. The weights are those of CLAP2Diffusion.
VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "hierarchy": ("--routing", "hierarchy"),
    "reverse": ("--routing", "reverse"),
    "annealing": ("--temperature_start", "2.0", "--temperature_end", "0.5"),
    "orthogonality": ("--orthogonality_weight", "0.1"),
    "entropy": ("--entropy_weight", "0.01"),
    "norm": ("--norm_weight", "0.01"),
}
FIGURES = {
    "object_accuracy": "one source",
    "scene_accuracy": "scene",
    "mixture_foreground_accuracy": "mixture: foreground",
    "mixture_background_accuracy": "background",
    "mixture_both_accuracy": "both",
    "background_swapped_both_accuracy": "both, background replaced",
}


def _run(name: str, options: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Train and evaluate a variant, or load the metrics of a finished run."""
    from diffuse.evaluate import main as evaluate
    from diffuse.train import main as train

    folder: Path = options.output_dir / f"{name}-seed{options.seed}"
    command = [
        *VARIANTS[name], "--output_dir", str(folder), "--seed", str(options.seed),
        "--num_images", "0", "--num_sheet_samples", "0", *rest,
    ]  # fmt: skip
    count = str(options.num_images)
    counts = [
        "--num_images", count, "--num_mixtures", count, "--num_contradictory", "0",
        "--num_captions", "0",
    ]  # fmt: skip
    command_file, figures = folder / "command.json", folder / "levels.json"
    if command_file.exists() and json.loads(command_file.read_text()) != [command, counts]:
        raise SystemExit(f"{folder} has a run with other options: give another --output_dir")
    if not figures.exists():
        train(command)
        command_file.write_text(json.dumps([command, counts]))
        evaluate([str(folder), *counts, "--json", str(figures)])
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def as_table(runs: dict[str, dict[str, Any]]) -> str:
    """Format the metrics and their 95% intervals as a Markdown table.

    Args:
        runs: Metrics of the variants by name.
    """
    lines = [
        f"| | {' | '.join(FIGURES.values())} |",
        f"| --- |{' --- |' * len(FIGURES)}",
    ]
    for name, run in runs.items():
        cells = []
        for figure in FIGURES:
            low, high = run[f"{figure}_interval"]
            cells.append(f"{run[figure]:.0%} [{low:.0%}, {high:.0%}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the missing parts and print the table; unknown options go to diffuse.train."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.levels", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="Variants to train."
    )
    parser.add_argument(
        "--num_images", type=int, default=100, help="Number of images of each kind."
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/benchmarks/levels"), help="Output directory."
    )
    options, rest = parser.parse_known_args(arguments)
    runs = {name: _run(name, options, rest) for name in options.variants}
    print(
        f"\nseed {options.seed}, {options.num_images} images {' '.join(rest)}\n\n{as_table(runs)}"
    )


if __name__ == "__main__":
    main()
