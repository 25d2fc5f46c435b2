"""Searches a training's options: `python -m align.tune [RECIPE] [--option value ...] --n_trials N`.

Every trial is a whole `align.train`, measured on the rows that the options hold out. Those rows
choose, so they cannot judge: with folds, leave the one that the final figure is to come from out of
--folds and of --eval_folds.
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
BEST = "best"  # the recipe of the best trial, and where it trains


@dataclass
class TuneArguments:
    """The search, beside all options of align.train."""

    study_dir: str = field(
        default="runs/align/study",
        metadata={"help": "where it is kept: the same command goes on where a killed one stopped"},
    )
    n_trials: int = field(default=20, metadata={"help": "trainings of the study in all"})
    search_space: str | None = field(
        default=None,
        metadata={"help": "YAML of what is searched (a recipe's key space says it too); by default "
                  "what fits the run: rate, losses, adapter, augmentation"},
    )  # fmt: skip
    objective: str = field(
        default="centered_cosine",
        metadata={"help": f"{', '.join(OBJECTIVES)}, of the held-out rows: these choose, so the "
                  "fold of the final figure must be neither in --folds nor in --eval_folds"},
    )  # fmt: skip
    prune: bool = field(
        default=True,
        metadata={"help": "stop what is weaker than the median, by --eval_strategy epoch"},
    )

    def __post_init__(self) -> None:
        if self.n_trials < 1:
            raise ValueError(f"--n_trials is at least 1, not {self.n_trials}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"--objective is one of {', '.join(OBJECTIVES)}: {self.objective!r}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Searches, prints the trials, and writes the best one as a recipe."""
    line = list(sys.argv[1:] if arguments is None else arguments)

    def parsed(more: Sequence[str] = ()) -> tuple[Options, TuneArguments]:
        found: tuple[Options, TuneArguments] = parse_options(
            COMMAND, [*line, *more], TuneArguments, check=check_model
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
    # Whatever is heavy is imported after the options are known to be right.
    from align.tune.space import build_search_space, default_search_space, read_search_space
    from align.tune.study import TuningStudy

    if options.training.world_size > 1:
        raise ValueError("a study runs in one process: start it without torchrun")
    if search.search_space is None:
        space = default_search_space(options, given)
    else:
        space = build_search_space(read_search_space(search.search_space))
        both = sorted(given & set(space))
        if both:
            raise ValueError(f"--{both[0]} is given and searched: leave it out of either")
    folder = Path(search.study_dir)
    tuning = TuningStudy.load_or_create(folder, parse_with, space, search.objective, search.prune)
    tuning.run(search.n_trials)
    best = tuning.best_trial()
    path = folder / f"{BEST}.yaml"
    _write_recipe(path, parse_with(tuning.flags(best.params, folder / BEST)))
    _report(tuning.write_table(), best.number, path, tuning.trial_folder(best.number))


def _given_options(line: Sequence[str]) -> set[str]:
    """The options that a command line sets by flags."""
    return {flag[2:].partition("=")[0] for flag in line if flag.startswith("--")}


def _write_recipe(path: Path, options: Options) -> None:
    import yaml

    head = f"# The best trial of {path.parent}: python -m align.train {path}\n"
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
