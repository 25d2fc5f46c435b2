"""Checkpoints that record the options which made them, so that only the same run is resumed.

Both packages use this: an alignment's checkpoint is complete once its run.json is there, one of the
UNet's once its marker is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.options import STATED, Options, differing
from align.config.training_args import LENGTH_OPTIONS
from align.hub.model_card import RUN_RECORD_NAME
from align.preprocessing.cache import digest

if TYPE_CHECKING:
    from align.preprocessing.features import AudioFeatures


# Options of the data that do not decide the weights.
FREE = ("workers", "eval_folds", "eval_dataset", "cache", "cache_dir")
ELSEWHERE = "give another --output_dir, or start over in this one with --overwrite_output_dir true"


def recorded_options(options: Options) -> dict[str, Any]:
    """The options of a run as JSON holds them, by theme."""
    parts = {k: asdict(v) for k, v in vars(options).items() if k != "training"}
    for part, names in (("training", options.training.DECISIVE), ("length", LENGTH_OPTIONS)):
        parts[part] = {name: getattr(options.training, name) for name in names}
    return dict(json.loads(json.dumps(parts)))


def recipe(options: Options) -> dict[str, Any]:
    """The recorded options of a run that a recipe of it states."""
    recorded = {name for part in recorded_options(options).values() for name in part}
    found = differing(options, STATED)
    return {name: value for name, value in found.items() if name in recorded}


def check_same_options(
    where: Path, before: Mapping[str, Any], now: Mapping[str, Any], parts: tuple[str, ...]
) -> None:
    """Refuses to resume a run with other options.

    Args:
        where: the checkpoint or the folder of the run.
        before: its options, by theme.
        now: those of this run.
        parts: the themes that decide the weights.

    Raises:
        ValueError: an option that decides the weights differs; one that the earlier run did not
            know yet is passed over.
    """
    differ = [
        f"{name} was {before[part][name]!r} and is {value!r}"
        for part in parts
        for name, value in now[part].items()
        if not (part == "data" and name in FREE)
        and name in before.get(part, {})
        and before[part][name] != value
    ]
    if differ:
        raise ValueError(
            f"{where} comes from a run with other options ({'; '.join(differ)}): {ELSEWHERE}"
        )


def complete_checkpoints(folder: Path, marker: str) -> list[Path]:
    """The checkpoints of a folder that have all their files, the one of most steps last.

    Args:
        folder: where the Trainer writes them.
        marker: the file that is written last.
    """
    found = [path.parent for path in folder.glob(f"checkpoint-*/{marker}")]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def last_checkpoint(folder: Path, marker: str) -> Path | None:
    """The complete checkpoint of most steps; None where there is none."""
    return next(reversed(complete_checkpoints(folder, marker)), None)


def resumable(options: Options) -> Path | None:
    """The checkpoint that a run resumes from, by its options; None where it starts.

    Raises:
        ValueError: it comes from a run with other options, the named one is none, or a run that
            starts over would mix its checkpoints with those of an earlier one.
    """
    training = options.training
    folder = Path(training.output_dir or ".")
    checkpoint = training.given_checkpoint
    if checkpoint is not None:
        if not (checkpoint / RUN_RECORD_NAME).is_file():
            raise ValueError(
                f"--resume_from_checkpoint {checkpoint} is no checkpoint of align.train: it has no "
                f"{RUN_RECORD_NAME}"
            )
    elif training.resumes:
        checkpoint = last_checkpoint(folder, RUN_RECORD_NAME)
    elif not training.overwrite_output_dir:
        check_no_run(complete_checkpoints(folder, RUN_RECORD_NAME), folder)
    if checkpoint is not None:
        before = json.loads((checkpoint / RUN_RECORD_NAME).read_text())["options"]
        parts = ("model", "data", "loss", "augment", "training")
        check_same_options(checkpoint, before, recorded_options(options), parts)
    return checkpoint


def check_no_run(found: list[Path], folder: Path) -> None:
    """Refuses to start over beside what an earlier run left to resume from.

    Raises:
        ValueError: something is there.
    """
    if found:
        raise ValueError(
            f"{folder} has checkpoints of an earlier run, such as {found[-1].name}, which a run "
            "that starts over would mix with its own: give another --output_dir, or delete them "
            "with --overwrite_output_dir true"
        )


def rows_digest(audio_features: AudioFeatures) -> str:
    """A short name that follows from which recordings are trained on and what is said of them."""
    return digest([audio_features.clip_ids, audio_features.captions, audio_features.labels])


def check_same_rows(checkpoint: Path, rows: str) -> None:
    """Refuses to go on with other rows than a checkpoint was trained on.

    Args:
        checkpoint: as `resumable` gives it.
        rows: as `rows_digest` names them now.

    Raises:
        ValueError: rows came, went, or are said to be something else.
    """
    # A checkpoint of before rows were told says nothing of them.
    before = json.loads((checkpoint / RUN_RECORD_NAME).read_text()).get("rows_digest") or rows
    if before != rows:
        raise ValueError(
            f"{checkpoint} was trained on other rows: the data have changed since; {ELSEWHERE}"
        )


def remove(checkpoints: list[Path], folder: Path) -> None:
    """Removes what an earlier run left to resume from.

    The Trainer keeps the checkpoints of the most steps: those of an earlier run would push out
    this one's own.
    """
    for checkpoint in checkpoints:
        shutil.rmtree(checkpoint)
    if checkpoints:
        count = len(checkpoints)
        print(f"{count} checkpoints of an earlier run in {folder} are removed", flush=True)
