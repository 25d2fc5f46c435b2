"""Tune the options of `align.train` with Optuna.

Every trial is a complete training run, evaluated on the held-out rows of its options. Keep a
separate test fold: one that is neither in --folds nor in --eval_folds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from align.config.options import Options, differing, parse_options
from align.training.validation import check_model
from align.tune.space import OBJECTIVES

COMMAND = "python -m align.tune"
EXAMPLES = (
    f"{COMMAND} --dataset FOLDER --folds 1 2 3 --eval_folds 4 --n_trials 20",
    f"{COMMAND} audiocaps --search_space space.yaml --study_dir runs/study",
)
BEST = "best"  # name of the best trial's recipe and of its output directory


@dataclass
class TuneArguments:
    """Options of the study."""

    study_dir: str = field(
        default="runs/align/study",
        metadata={"help": "Directory of the study; an interrupted study resumes from it."},
    )
    n_trials: int = field(default=20, metadata={"help": "Total number of trials in the study."})
    search_space: str | None = field(
        default=None,
        metadata={"help": "YAML file with the search space (also the recipe key search_space). "
                  "Defaults to learning rate, losses, adapter and augmentation."},
    )  # fmt: skip
    objective: str = field(
        default="centered_cosine",
        metadata={"help": "Metric to maximize on the held-out rows: centered_cosine, "
                  "class_accuracy or image_accuracy. Keep a separate test fold."},
    )  # fmt: skip
    prune: bool = field(
        default=True,
        metadata={"help": "Stop trials below the median (requires --eval_strategy epoch)."},
    )

    def __post_init__(self) -> None:
        if self.n_trials < 1:
            raise ValueError(f"--n_trials is at least 1, not {self.n_trials}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"--objective is one of {', '.join(OBJECTIVES)}: {self.objective!r}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, print its trials, and write a recipe of the best one."""
    line = list(sys.argv[1:] if arguments is None else arguments)

    def parsed(more: Sequence[str] = ()) -> tuple[Options, TuneArguments]:
        found: tuple[Options, TuneArguments] = parse_options(
            COMMAND, [*line, *more], TuneArguments, check=check_model, examples=EXAMPLES
        )
        return found

    options, search = parsed()
    try:
        _search(options, search, lambda more: parsed(more)[0], _given_options(line))
    except (ValueError, OSError) as error:
        raise SystemExit(f"align.tune: {error}") from error


def _search(options: Options, search: TuneArguments, parse_with: Any, given: set[str]) -> None:
    if find_spec("optuna") is None:
        raise ValueError("a study needs optuna, which is not installed: pip install optuna")
    # Slow imports come after the options are checked.
    from align.tune.space import build_search_space, default_search_space, read_search_space
    from align.tune.study import TuningStudy

    if options.training.world_size > 1:
        raise ValueError("a study is single-process: run it without torchrun")
    if search.search_space is None:
        space = default_search_space(options, given)
    else:
        space = build_search_space(read_search_space(search.search_space))
        both = sorted(given & set(space))
        if both:
            raise ValueError(f"--{both[0]} is given and in the search space: leave it out of one")
    folder = Path(search.study_dir)
    tuning = TuningStudy.load_or_create(folder, parse_with, space, search.objective, search.prune)
    tuning.run(search.n_trials)
    best = tuning.best_trial()
    path = folder / f"{BEST}.yaml"
    _write_recipe(path, parse_with(tuning.flags(best.params, folder / BEST)))
    _report(tuning.write_table(), best.number, path, tuning.trial_folder(best.number))


def _given_options(line: Sequence[str]) -> set[str]:
    """Return the names of the flags of a command line."""
    return {flag[2:].partition("=")[0] for flag in line if flag.startswith("--")}


def _write_recipe(path: Path, options: Options) -> None:
    import yaml

    head = f"# Best trial of {path.parent}: python -m align.train {path}\n"
    path.write_text(head + yaml.safe_dump(differing(options), sort_keys=False, allow_unicode=True))


def _report(rows: list[list[str]], best: int, recipe: Path, encoder: Path) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print()
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    print(f"\nThe best trial is {best}; its encoder is in {encoder}.")
    print(f"Train it again, or elsewhere: python -m align.train {recipe}")


if __name__ == "__main__":
    main()
