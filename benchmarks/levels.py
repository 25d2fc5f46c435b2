"""What levels, their routing and their options do for the pictures: `python -m benchmarks.levels`.

Every variant learns to hear on the miniature by `python -m diffuse.train`, differing from the
default in what its name says, and is measured by `python -m diffuse.evaluate`: sounds of one thing,
sounds of two, and each level of a mixture swapped alone, from the same seeds. Runs that are
already measured are not repeated, so an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# By name, what differs from the default. The strengths of the options are CLAP2Diffusion's plan's.
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
    "object_accuracy": "one thing",
    "scene_accuracy": "time of day",
    "mixture_foreground_accuracy": "front",
    "mixture_background_accuracy": "behind",
    "mixture_both_accuracy": "both",
    "background_swapped_both_accuracy": "both, background swapped",
}


def _run(name: str, options: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Trains a variant and measures it, or reads what was measured before."""
    from diffuse.evaluate import main as evaluate
    from diffuse.train import main as train

    folder: Path = options.output_dir / f"{name}-seed{options.seed}"
    command = [
        *VARIANTS[name], "--output_dir", str(folder), "--seed", str(options.seed),
        "--num_images", "0", "--num_sheet_samples", "0", *rest,
    ]  # fmt: skip
    count = str(options.num_images)
    shown = [
        "--num_images",
        count,
        "--num_mixtures",
        count,
        "--num_contradictory",
        "0",
        "--num_captions",
        "0",
    ]
    noted, figures = folder / "command.json", folder / "levels.json"
    if noted.exists() and json.loads(noted.read_text()) != [command, shown]:
        raise SystemExit(f"{folder} comes from other options: give another --out")
    if not figures.exists():
        train(command)
        noted.write_text(json.dumps([command, shown]))
        evaluate([str(folder), *shown, "--json", str(figures)])
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def as_table(runs: dict[str, dict[str, Any]]) -> str:
    """Variants in rows, figures in columns, as Markdown; the interval under each is 95%."""
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
    """Runs what is missing and prints the table; unknown flags go to diffuse.train."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.levels", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--num_images", type=int, default=100, help="drawn and judged of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/benchmarks/levels"))
    options, rest = parser.parse_known_args(arguments)
    runs = {name: _run(name, options, rest) for name in options.variants}
    print(
        f"\nseed {options.seed}, {options.num_images} pictures {' '.join(rest)}\n\n{as_table(runs)}"
    )


if __name__ == "__main__":
    main()
