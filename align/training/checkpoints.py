"""Checkpoints with a record of their options, so that a run resumes only with the same ones.

Both packages use this. A checkpoint of `align` is complete when it has a run.json, one of `diffuse`
when it has its marker file.
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


# Data options that do not determine the weights.
FREE = ("num_workers", "eval_folds", "eval_dataset", "cache", "cache_dir")
ELSEWHERE = "give another --output_dir, or start over in this one with --overwrite_output_dir true"


def recorded_options(options: Options) -> dict[str, Any]:
    """Return the options of a run as JSON values, by dataclass."""
    parts = {k: asdict(v) for k, v in vars(options).items() if k != "training"}
    determining = options.training.WEIGHT_DETERMINING_OPTIONS
    for part, names in (("training", determining), ("length", LENGTH_OPTIONS)):
        parts[part] = {name: getattr(options.training, name) for name in names}
    return dict(json.loads(json.dumps(parts)))


def recipe(options: Options) -> dict[str, Any]:
    """Return the recorded options of a run that its recipe includes."""
    recorded = {name for part in recorded_options(options).values() for name in part}
    found = differing(options, STATED)
    return {name: value for name, value in found.items() if name in recorded}


def check_same_options(
    where: Path, before: Mapping[str, Any], now: Mapping[str, Any], parts: tuple[str, ...]
) -> None:
    """Check that a run resumes with the same options.

    Options that the earlier run does not record, because they are newer, are skipped.

    Args:
        where: Checkpoint or folder of the run.
        before: Recorded options, by dataclass.
        now: Options of this run.
        parts: Dataclasses that determine the weights.

    Raises:
        ValueError: If an option that determines the weights differs.
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
    """Return the complete checkpoints of a folder, ordered by step.

    Args:
        folder: Output directory of the run.
        marker: Name of the file that is written last.
    """
    found = [path.parent for path in folder.glob(f"checkpoint-*/{marker}")]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def last_checkpoint(folder: Path, marker: str) -> Path | None:
    """Return the last complete checkpoint, or None if there is none."""
    return next(reversed(complete_checkpoints(folder, marker)), None)


def resumable(options: Options) -> Path | None:
    """Return the checkpoint that a run resumes from, or None if it starts over.

    Args:
        options: Options of the run.

    Raises:
        ValueError: If the checkpoint comes from a run with other options or is not a checkpoint
            of `align.train`, or the run starts over in a folder with other checkpoints.
    """
    training = options.training
    folder = Path(training.output_dir or ".")
    checkpoint = training.given_checkpoint
    if checkpoint is not None:
        if not (checkpoint / RUN_RECORD_NAME).is_file():
            raise ValueError(
                f"--resume_from_checkpoint {checkpoint} is not a checkpoint of align.train: it "
                f"has no {RUN_RECORD_NAME}"
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
    """Check that a run that starts over does not share its folder with other checkpoints.

    Args:
        found: Checkpoints of an earlier run.
        folder: Output directory.

    Raises:
        ValueError: If there are checkpoints.
    """
    if found:
        raise ValueError(
            f"{folder} has checkpoints of an earlier run, such as {found[-1].name}, which a run "
            "that starts over would mix with its own: give another --output_dir, or delete them "
            "with --overwrite_output_dir true"
        )


def rows_digest(audio_features: AudioFeatures) -> str:
    """Return a digest of the training rows: clip ids, captions and labels."""
    return digest([audio_features.clip_ids, audio_features.captions, audio_features.labels])


def check_same_rows(checkpoint: Path, rows: str) -> None:
    """Check that a run resumes with the rows that its checkpoint was trained on.

    Args:
        checkpoint: Checkpoint to resume from.
        rows: Digest of the current rows, from `rows_digest`.

    Raises:
        ValueError: If rows were added or removed, or their captions or labels changed.
    """
    # Checkpoints of earlier versions have no digest.
    before = json.loads((checkpoint / RUN_RECORD_NAME).read_text()).get("rows_digest") or rows
    if before != rows:
        raise ValueError(
            f"{checkpoint} was trained on other rows: the dataset has changed since; {ELSEWHERE}"
        )


def remove(checkpoints: list[Path], folder: Path) -> None:
    """Delete the checkpoints of an earlier run.

    The Trainer keeps the checkpoints with the most steps, so it would delete those of the new run
    instead.

    Args:
        checkpoints: Checkpoints to delete.
        folder: Output directory, for the message.
    """
    for checkpoint in checkpoints:
        shutil.rmtree(checkpoint)
    if checkpoints:
        count = len(checkpoints)
        print(f"deleted {count} checkpoints of an earlier run in {folder}", flush=True)
