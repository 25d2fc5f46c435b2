"""Train an audio encoder: `python -m align.train [RECIPE] [--option value ...]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import check_extra, quiet_libraries
from align.config.options import Options, parse_options
from align.training.validation import check_model

if TYPE_CHECKING:
    from align.evaluation.statistics import Estimate

COMMAND = "python -m align.train"
EXAMPLES = (
    f"{COMMAND}                   the mini models and dataset, in minutes",
    f"{COMMAND} fsd50k            a recipe of the package, or a YAML file",
    f"{COMMAND} --dataset FOLDER  your own clips, with metadata.csv",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, evaluate, and print where the results are."""
    options = parse_options(COMMAND, arguments, check=check_model, examples=EXAMPLES)
    check_extra("align.train", "train", "datasets")
    # Slow imports come after the options are checked.
    from align.audio.files import AudioError
    from align.data.errors import DataError
    from align.training.distributed import (
        destroy_process_group,
        init_process_group,
        is_main_process,
        main_process_first,
        main_process_stdout,
    )
    from align.training.run import TrainingRun

    quiet_libraries()
    init_process_group(options.training)
    is_main = is_main_process()
    try:
        with main_process_stdout():
            with main_process_first():
                run = TrainingRun.from_options(options)
            run.train()
        destroy_process_group()  # the other processes are finished
        metrics = run.evaluate() if is_main else None
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"align.train: {error}") from error
    except KeyboardInterrupt:
        print(f"\nalign.train: stopped; {_resume_note(options)}", flush=True)
        raise SystemExit(130) from None  # the exit status of an interrupted process
    if metrics is not None:
        _report(run.folder, run.evaluated_on, metrics, options.training.verbose)


def _resume_note(options: Options) -> str:
    """Describe what the same command does after an interruption."""
    training = options.training
    if not training.starts_over and training.save_strategy != "no":
        return "the same command resumes from the last checkpoint, if there is one"
    return "the same command starts over"


def _report(folder: Path, evaluated_on: str, metrics: dict[str, Estimate], verbose: bool) -> None:
    from align.evaluation.statistics import flatten_metrics, format_summary, format_table
    from align.hub.model_card import METRICS_NAME, MODEL_CARD_NAME, SAMPLE_SHEET_NAME, write_card

    metrics_json = flatten_metrics(metrics) | {"evaluated_on": evaluated_on}
    (folder / METRICS_NAME).write_text(json.dumps(metrics_json, indent=2) + "\n")
    write_card(folder)
    print(f"\nEvaluated on {evaluated_on}: {format_summary(metrics)}\n")
    if verbose:
        print(f"{format_table(metrics)}\n")
    print(f"The encoder is in {folder}; its metrics are in {folder / METRICS_NAME}.")
    print(f"The model card for the Hub is {folder / MODEL_CARD_NAME}.")
    if (folder / SAMPLE_SHEET_NAME).exists():
        print(f"The sample sheet of audio and generated images is {folder / SAMPLE_SHEET_NAME}.")


if __name__ == "__main__":
    main()
