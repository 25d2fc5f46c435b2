"""A run's folder: what was asked of it, which stages are done, where a killed one goes on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from align.preprocessing.cache import digest
from align.preprocessing.fingerprint import recording_names, told_recordings
from align.training.checkpoints import ELSEWHERE, check_no_run, check_same_options, remove
from diffuse.models.saving import read_json

if TYPE_CHECKING:
    from diffuse.config.options import Options
    from diffuse.data.pairs import Pairs


PARTS = ("model", "data", "loss", "training")  # of what a run tells, what is read again
TOLD, WHOLE, DONE = "run.json", "whole", "done"


def told_options(options: Options) -> dict[str, Any]:
    """The options of a run that decide its weights, by theme, as JSON holds them."""
    parts = {name: asdict(getattr(options, name)) for name in ("model", "data", "loss", "recall")}
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
        not (given / WHOLE).is_file() or given.resolve().parents[1] != folder.resolve()
    ):
        raise ValueError(
            f"--resume_from_checkpoint {given} is no complete checkpoint of a stage in {folder}: "
            "give its run as --output_dir"
        )
    if training.starts_over:
        if not training.overwrite_output_dir:
            check_no_run(_stages(folder), folder)
    elif (folder / TOLD).exists():
        parts = ("model", "data", "loss", "recall", "training")
        check_same_options(folder, told(folder), told_options(options), parts)


def _stages(folder: Path) -> list[Path]:
    """The folders of stages in which an earlier run left something to resume from."""
    markers = (*folder.glob(f"stage-*/{DONE}"), *folder.glob(f"stage-*/*/{WHOLE}"))
    return sorted({folder / marker.relative_to(folder).parts[0] for marker in markers})


def told_pairs(pairs: Pairs) -> str:
    """A short name that follows from the pairs that a run trains on."""
    names = recording_names(pairs.rows.with_format(None))  # which makes no sound
    return digest([names, _images(pairs.rows), pairs.captions, pairs.labels, pairs.phrases])


def check_pairs(folder: Path, options: Options, now: str) -> None:
    """Refuses to resume a run on other pairs.

    Args:
        folder: the run's.
        options: of the run.
        now: as `told_pairs` names them.

    Raises:
        ValueError: pairs came, went, or are said to be something else.
    """
    if options.training.starts_over or not (folder / TOLD).exists():
        return
    if told(folder).get("pairs", now) != now:
        raise ValueError(
            f"{folder} has a run on other pairs: the data have changed since; {ELSEWHERE}"
        )


def begin(folder: Path, options: Options, pairs: str) -> None:
    """Records what a run is asked for, once its models and data are known to be right.

    Args:
        folder: the run's; what an earlier run left to resume from is removed where this one starts
            over.
        options: of the run.
        pairs: as `told_pairs` names them.
    """
    if options.training.starts_over:
        remove(_stages(folder), folder)
    folder.mkdir(parents=True, exist_ok=True)
    story = told_options(options) | {"pairs": pairs}
    (folder / TOLD).write_text(json.dumps(story, indent=1) + "\n")


def _images(rows: Dataset) -> Any:
    """What names the images of pairs; nothing where they are made of what their rows say."""
    plain = rows.with_format(None)
    if "image" not in plain.column_names:
        return None
    files = isinstance(plain[0]["image"], str)
    return list(plain["image"]) if files else told_recordings(rows, "image")


def told(run: str | Path) -> dict[str, Any]:
    """What a run's folder tells of its options.

    Raises:
        ValueError: it is no folder that a run wrote.
    """
    found = read_json(Path(run) / TOLD)
    # An alignment leaves a file of that name too.
    if not isinstance(found, dict) or not set(PARTS) <= set(found):
        raise ValueError(f"{str(run)!r} is no run: give a folder that diffuse.train wrote")
    return found
