"""Teaches a UNet to hear: `python -m diffuse.train [RECIPE] [--option value ...]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffuse.config.arguments import MINI_ENCODER
from diffuse.config.options import parse_options

if TYPE_CHECKING:
    from align.evaluation.statistics import Measured

COMMAND = "python -m diffuse.train"
EXAMPLES = (
    f"{COMMAND}                              the mini models and data, in minutes",
    f"{COMMAND} sd15 --data FOLDER           Stable Diffusion 1.5 on audio-image pairs",
    f"{COMMAND} sonicdiffusion --data FOLDER the layers of SonicDiffusion",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, trains, measures, and says where the results are."""
    options = parse_options(COMMAND, arguments, examples=EXAMPLES)
    # Whatever is heavy is imported after the options are known to be right.
    from align.audio.files import AudioError
    from align.data.errors import DataError
    from align.training.distributed import leave
    from diffuse.training.run import Session

    try:
        _align_miniature(options.model.encoder)
        session = Session.open(options)
        session.train()
        leave()  # the others have done their part
        if not session.is_main:
            return
        figures = session.measure()
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.train: {error}") from error
    _report(session.folder, session.measured_on, figures)


def _align_miniature(encoder: str) -> None:
    """The miniature's own encoder is trained where it is missing; any other must be there."""
    if encoder != MINI_ENCODER or (Path(encoder) / "config.json").exists():
        return
    from align.train import main as align

    print(f"there is no {encoder} yet: `python -m align.train` comes first", flush=True)
    align(["--output_dir", encoder, "--pictures", "0", "--samples", "0"])


def _report(folder: Path, measured_on: str, figures: dict[str, Measured]) -> None:
    from align.evaluation.statistics import as_table, flat

    kept = flat(figures) | {"measured_on": measured_on}
    (folder / "metrics.json").write_text(json.dumps(kept, indent=2) + "\n")
    if figures:
        print(f"\nMeasured on {measured_on}:\n{as_table(figures)}\n")
    print(f"The adapter is in {folder}; its figures are in {folder / 'metrics.json'}.")
    if (folder / "samples.png").exists():
        print(f"Sounds and what they drew are in {folder / 'samples.png'}.")


if __name__ == "__main__":
    main()
