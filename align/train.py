"""Trains an alignment: `python -m align.train [RECIPE] [--option value ...]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align.config.options import Options, parse_options
from align.training.validation import check_model

if TYPE_CHECKING:
    from align.evaluation.statistics import Measured

COMMAND = "python -m align.train"
EXAMPLES = (
    f"{COMMAND}                            the mini models and data, in minutes",
    f"{COMMAND} fsd50k                     a recipe of the package, or a YAML file",
    f"{COMMAND} --data FOLDER --base sd15  your own clips, with metadata.csv",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, trains, measures, and says where the results are."""
    options = parse_options(COMMAND, arguments, check=check_model, examples=EXAMPLES)
    # Whatever is heavy is imported after the options are known to be right.
    from align.audio.files import AudioError
    from align.data.errors import DataError
    from align.training.distributed import is_main, join, leave, main_first, quiet_but_for_main
    from align.training.run import Session

    join(options.training)
    writes = is_main()
    try:
        with quiet_but_for_main():
            with main_first():
                session = Session.open(options)
            session.train()
        leave()  # the others have done their part
        figures = session.measure() if writes else None
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"align.train: {error}") from error
    except KeyboardInterrupt:
        print(f"\nalign.train: stopped; {_further(options)}", flush=True)
        raise SystemExit(130) from None  # what a shell expects of a process that was interrupted
    if figures is not None:
        _report(session.folder, session.measured_on, figures)


def _further(options: Options) -> str:
    """What the same command does after it was stopped."""
    training = options.training
    if not training.starts_over and training.save_strategy != "no":
        return "the same command goes on from its last checkpoint, where there is one"
    return "the same command starts anew"


def _report(folder: Path, measured_on: str, figures: dict[str, Measured]) -> None:
    from align.evaluation.statistics import as_table, flat
    from align.hub.model_card import CARD, FIGURES, SHEET, write_card

    kept = flat(figures) | {"measured_on": measured_on}
    (folder / FIGURES).write_text(json.dumps(kept, indent=2) + "\n")
    write_card(folder)
    print(f"\nMeasured on {measured_on}:\n{as_table(figures)}\n")
    print(f"The encoder is in {folder}; its figures are in {folder / FIGURES}.")
    print(f"Its card, ready to publish, is {folder / CARD}.")
    if (folder / SHEET).exists():
        print(f"Sounds and the pictures they drew are in {folder / SHEET}.")


if __name__ == "__main__":
    main()
