"""A run's folder: what was asked of it, which stages are done, where a killed one goes on."""

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


RECORD_SECTIONS = ("model", "data", "loss", "training")  # of what a run tells, what is read again
RECORD_NAME, COMPLETE_MARKER, DONE_MARKER = "run.json", "complete", "done"


def recorded_options(options: Options) -> dict[str, Any]:
    """The options of a run that decide its weights, by theme, as JSON holds them."""
    parts = {
        name: asdict(getattr(options, name))
        for name in ("model", "data", "loss", "retrieval_memory")
    }
    names = options.training.DECISIVE
    parts["training"] = {name: getattr(options.training, name) for name in names}
    return dict(json.loads(json.dumps(parts)))


def check_run(folder: Path, options: Options) -> None:
    """Checks that a folder is free for a run, or has the same run to resume; writes nothing.

    Raises:
        ValueError: the folder has a run with other options, a run that starts over would mix with
            it, or a checkpoint was named that is none of it.
    """
    training = options.training
    given = training.given_checkpoint
    if given is not None and (
        not (given / COMPLETE_MARKER).is_file() or given.resolve().parents[1] != folder.resolve()
    ):
        raise ValueError(
            f"--resume_from_checkpoint {given} is no complete checkpoint of a stage in {folder}: "
            "give its run as --output_dir"
        )
    if training.starts_over:
        if not training.overwrite_output_dir:
            check_no_run(_stages(folder), folder)
    elif (folder / RECORD_NAME).exists():
        parts = ("model", "data", "loss", "retrieval_memory", "training")
        check_same_options(folder, load_run_record(folder), recorded_options(options), parts)


def _stages(folder: Path) -> list[Path]:
    """The folders of stages in which an earlier run left something to resume from."""
    markers = (*folder.glob(f"stage-*/{DONE_MARKER}"), *folder.glob(f"stage-*/*/{COMPLETE_MARKER}"))
    return sorted({folder / marker.relative_to(folder).parts[0] for marker in markers})


def pairs_fingerprint(pairs: AudioImagePairs) -> str:
    """A short name that follows from the pairs that a run trains on."""
    names = clip_names(pairs.rows.with_format(None))  # which makes no sound
    return digest([names, _image_names(pairs.rows), pairs.captions, pairs.labels, pairs.phrases])


def check_pairs(folder: Path, options: Options, fingerprint: str) -> None:
    """Refuses to resume a run on other pairs.

    Args:
        folder: the run's.
        options: of the run.
        now: as `pairs_fingerprint` names them.

    Raises:
        ValueError: pairs came, went, or are said to be something else.
    """
    if options.training.starts_over or not (folder / RECORD_NAME).exists():
        return
    if load_run_record(folder).get("pairs", fingerprint) != fingerprint:
        raise ValueError(
            f"{folder} has a run on other pairs: the data have changed since; {ELSEWHERE}"
        )


def start_run(folder: Path, options: Options, pairs: str) -> None:
    """Records what a run is asked for, once its models and data are known to be right.

    Args:
        folder: the run's; what an earlier run left to resume from is removed where this one starts
            over.
        options: of the run.
        pairs: as `pairs_fingerprint` names them.
    """
    if options.training.starts_over:
        remove(_stages(folder), folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = recorded_options(options) | {"pairs": pairs}
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n")


def _image_names(rows: Dataset) -> Any:
    """What names the images of pairs; nothing where they are made of what their rows say."""
    plain = rows.with_format(None)
    if "image" not in plain.column_names:
        return None
    files = isinstance(plain[0]["image"], str)
    return list(plain["image"]) if files else audio_fingerprint(rows, "image")


def load_run_record(run: str | Path) -> dict[str, Any]:
    """What a run's folder tells of its options.

    Raises:
        ValueError: it is no folder that a run wrote.
    """
    found = read_json(Path(run) / RECORD_NAME)
    # An alignment leaves a file of that name too.
    if not isinstance(found, dict) or not set(RECORD_SECTIONS) <= set(found):
        raise ValueError(f"{str(run)!r} is no run: give a folder that diffuse.train wrote")
    return found
