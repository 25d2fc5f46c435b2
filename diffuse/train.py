"""Teaches a UNet to hear: `python -m diffuse.train [RECIPE] [--option value ...]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffuse.config.arguments import MINI_ENCODER
from diffuse.config.options import parse_options

if TYPE_CHECKING:
    from align.evaluation.statistics import Estimate

COMMAND = "python -m diffuse.train"
EXAMPLES = (
    f"{COMMAND}                              the mini models and data, in minutes",
    f"{COMMAND} sd15 --dataset FOLDER           Stable Diffusion 1.5 on audio-image pairs",
    f"{COMMAND} sonicdiffusion --dataset FOLDER the layers of SonicDiffusion",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, trains, measures, and says where the results are."""
    options = parse_options(COMMAND, arguments, examples=EXAMPLES)
    # Whatever is heavy is imported after the options are known to be right.
    from align.audio.files import AudioError
    from align.data.errors import DataError
    from align.training.distributed import destroy_process_group
    from diffuse.training.run import TrainingRun

    try:
        _train_mini_encoder(options.model.encoder)
        run = TrainingRun.from_options(options)
        run.train()
        destroy_process_group()  # the others have done their part
        if not run.is_main:
            return
        figures = run.evaluate()
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.train: {error}") from error
    _report(run.folder, run.eval_name, figures)


def _train_mini_encoder(encoder: str) -> None:
    """The miniature's own encoder is trained where it is missing; any other must be there."""
    if encoder != MINI_ENCODER or (Path(encoder) / "config.json").exists():
        return
    from align.train import main as align

    print(f"there is no {encoder} yet: `python -m align.train` comes first", flush=True)
    align(["--output_dir", encoder, "--num_images", "0", "--num_sheet_samples", "0"])


def _report(folder: Path, eval_name: str, figures: dict[str, Estimate]) -> None:
    from align.evaluation.statistics import flatten_metrics, format_table

    kept = flatten_metrics(figures) | {"evaluated_on": eval_name}
    (folder / "metrics.json").write_text(json.dumps(kept, indent=2) + "\n")
    if figures:
        print(f"\nMeasured on {eval_name}:\n{format_table(figures)}\n")
    print(f"The adapter is in {folder}; its figures are in {folder / 'metrics.json'}.")
    if (folder / "samples.png").exists():
        print(f"Sounds and what they drew are in {folder / 'samples.png'}.")


if __name__ == "__main__":
    main()
