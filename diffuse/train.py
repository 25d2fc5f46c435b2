"""Train an audio adapter on a UNet: `python -m diffuse.train [RECIPE] [--option value ...]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.cli import check_extra, quiet_libraries
from diffuse.config.arguments import MINI_ENCODER
from diffuse.config.options import parse_options

if TYPE_CHECKING:
    from align.evaluation.statistics import Estimate

COMMAND = "python -m diffuse.train"
EXAMPLES = (
    f"{COMMAND}                                  the mini models and data, in minutes",
    f"{COMMAND} sd15 --dataset FOLDER            Stable Diffusion 1.5 on audio-image pairs",
    f"{COMMAND} sonicdiffusion --dataset FOLDER  audio attention as in SonicDiffusion",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, evaluate and print where the results are."""
    options = parse_options(COMMAND, arguments, examples=EXAMPLES)
    check_extra("diffuse.train", "train", "datasets")
    # Import heavy modules only after the options have been validated.
    from align.audio.files import AudioError
    from align.data.errors import DataError
    from align.training.distributed import destroy_process_group
    from diffuse.training.run import TrainingRun

    quiet_libraries()
    try:
        _train_mini_encoder(options.model.encoder)
        run = TrainingRun.from_options(options)
        run.train()
        destroy_process_group()  # the other processes are done
        if not run.is_main:
            return
        metrics = run.evaluate()
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.train: {error}") from error
    _report(run.folder, run.evaluated_on, metrics, options.training.verbose)


def _train_mini_encoder(encoder: str) -> None:
    """Train the encoder of the mini models if it is missing; other encoders must exist."""
    if encoder != MINI_ENCODER or (Path(encoder) / "config.json").exists():
        return
    from align.train import main as align

    print(f"{encoder} does not exist: running `python -m align.train` first", flush=True)
    align(["--output_dir", encoder, "--num_images", "0", "--num_sheet_samples", "0"])


def _report(folder: Path, evaluated_on: str, metrics: dict[str, Estimate], verbose: bool) -> None:
    from align.evaluation.statistics import flatten_metrics, format_summary, format_table

    saved = flatten_metrics(metrics) | {"evaluated_on": evaluated_on}
    (folder / "metrics.json").write_text(json.dumps(saved, indent=2) + "\n")
    if metrics:
        print(f"\nEvaluated on {evaluated_on}: {format_summary(metrics)}\n")
    if metrics and verbose:
        print(f"{format_table(metrics)}\n")
    print(f"The adapter is in {folder}; its metrics are in {folder / 'metrics.json'}.")
    if (folder / "samples.png").exists():
        print(f"A sheet of samples is in {folder / 'samples.png'}.")


if __name__ == "__main__":
    main()
