"""The record of a run, its finished stages and the checkpoints that it resumes from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from align.preprocessing.cache import digest
from align.preprocessing.fingerprint import audio_fingerprint, clip_names
from align.training.checkpoints import ELSEWHERE, check_no_run, check_same_options, remove
from diffuse.models.saving import read_json

if TYPE_CHECKING:
    from diffuse.config.options import Options
    from diffuse.data.pairs import AudioImagePairs


RECORD_SECTIONS = ("model", "data", "loss", "training")  # sections that diffuse.evaluate reads
RUN_RECORD_NAME, COMPLETE_MARKER, DONE_MARKER = "run.json", "complete", "done"


def recorded_options(options: Options) -> dict[str, Any]:
    """Return the options that determine the weights of a run.

    Args:
        options: Options of the run.

    Returns:
        JSON-compatible options by section.
    """
    sections = {
        name: asdict(getattr(options, name))
        for name in ("model", "data", "loss", "retrieval_memory")
    }
    names = options.training.WEIGHT_DETERMINING_OPTIONS
    sections["training"] = {name: getattr(options.training, name) for name in names}
    return dict(json.loads(json.dumps(sections)))


def check_run(folder: Path, options: Options) -> None:
    """Check that a folder is free for a run or contains the same run to resume; write nothing.

    Args:
        folder: Folder of the run.
        options: Options of the run.

    Raises:
        ValueError: If the folder contains a run with other options, a run that starts over would be
            mixed with an earlier one, or --resume_from_checkpoint is not a checkpoint of the run.
    """
    training = options.training
    given = training.given_checkpoint
    if given is not None and (
        not (given / COMPLETE_MARKER).is_file() or given.resolve().parents[1] != folder.resolve()
    ):
        raise ValueError(
            f"--resume_from_checkpoint {given} is not a complete checkpoint of a stage in "
            f"{folder}: give its run as --output_dir"
        )
    if training.starts_over:
        if not training.overwrite_output_dir:
            check_no_run(_stages(folder), folder)
    elif (folder / RUN_RECORD_NAME).exists():
        sections = ("model", "data", "loss", "retrieval_memory", "training")
        check_same_options(folder, load_run_record(folder), recorded_options(options), sections)


def _stages(folder: Path) -> list[Path]:
    """Return the folders of stages that an earlier run can be resumed from."""
    markers = (*folder.glob(f"stage-*/{DONE_MARKER}"), *folder.glob(f"stage-*/*/{COMPLETE_MARKER}"))
    return sorted({folder / marker.relative_to(folder).parts[0] for marker in markers})


def pairs_fingerprint(pairs: AudioImagePairs) -> str:
    """Return a fingerprint of the pairs that a run is trained on.

    Args:
        pairs: The pairs.
    """
    names = clip_names(pairs.rows.with_format(None))  # does not generate synthetic audio
    return digest([names, _image_names(pairs.rows), pairs.captions, pairs.labels, pairs.phrases])


def check_pairs(folder: Path, options: Options, fingerprint: str) -> None:
    """Check that a run to resume was started on the same pairs.

    Args:
        folder: Folder of the run.
        options: Options of the run.
        fingerprint: Fingerprint of the pairs from `pairs_fingerprint`.

    Raises:
        ValueError: If pairs were added, removed or changed.
    """
    if options.training.starts_over or not (folder / RUN_RECORD_NAME).exists():
        return
    if load_run_record(folder).get("pairs", fingerprint) != fingerprint:
        raise ValueError(f"{folder} has a run on other pairs: the dataset has changed; {ELSEWHERE}")


def start_run(folder: Path, options: Options, pairs: str) -> None:
    """Record the options of a run once its models and data have been validated.

    Args:
        folder: Folder of the run. If the run starts over, stages of an earlier run are removed.
        options: Options of the run.
        pairs: Fingerprint of the pairs from `pairs_fingerprint`.
    """
    if options.training.starts_over:
        remove(_stages(folder), folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = recorded_options(options) | {"pairs": pairs}
    (folder / RUN_RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n")


def _image_names(rows: Dataset) -> Any:
    """Return what identifies the images of pairs, or None if they are rendered from the rows."""
    plain = rows.with_format(None)
    if "image" not in plain.column_names:
        return None
    files = isinstance(plain[0]["image"], str)
    return list(plain["image"]) if files else audio_fingerprint(rows, "image")


def load_run_record(run: str | Path) -> dict[str, Any]:
    """Load the recorded options of a run.

    Args:
        run: Folder of the run.

    Returns:
        Options by section.

    Raises:
        ValueError: If the folder was not written by diffuse.train.
    """
    found = read_json(Path(run) / RUN_RECORD_NAME)
    # align.train writes a file of the same name.
    if not isinstance(found, dict) or not set(RECORD_SECTIONS) <= set(found):
        raise ValueError(f"{str(run)!r} is no run: give a folder written by diffuse.train")
    return found
