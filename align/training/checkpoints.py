"""Checkpoints that tell which options made them, so that only the same run goes on from them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config.options import STATED, Options, differing
from align.config.training_args import DECISIVE, LENGTH
from align.hub.model_card import TOLD
from align.preprocessing.cache import digest

if TYPE_CHECKING:
    from align.preprocessing.features import Heard


# Of ours, those that do not.
FREE = {"data": ("workers", "eval_folds", "eval_data", "cache", "cache_dir")}


def told_options(options: Options) -> dict[str, Any]:
    """The options of a run as JSON holds them, by theme."""
    parts = {k: asdict(v) for k, v in vars(options).items() if k != "training"}
    for part, names in (("training", DECISIVE), ("length", LENGTH)):
        parts[part] = {name: getattr(options.training, name) for name in names}
    return dict(json.loads(json.dumps(parts)))


def recipe(options: Options) -> dict[str, Any]:
    """The recorded options of a run that a recipe of it states."""
    recorded = {name for part in told_options(options).values() for name in part}
    found = differing(options, STATED)
    return {name: value for name, value in found.items() if name in recorded}


def last_checkpoint(folder: Path, options: dict[str, Any]) -> Path | None:
    """The newest whole checkpoint in a folder; None where there is none.

    A checkpoint that a killed run left half written tells nothing and is passed over.

    Raises:
        ValueError: it was trained with other options than these.
    """
    whole = [told.parent for told in folder.glob(f"checkpoint-*/{TOLD}")]
    if not whole:
        return None
    newest = max(whole, key=lambda path: (path / TOLD).stat().st_mtime_ns)
    before = json.loads((newest / TOLD).read_text())["options"]
    differ = [
        f"{name} was {before[part][name]!r} and is {value!r}"
        for part in ("model", "data", "loss", "augment", "training")
        for name, value in options[part].items()
        # A checkpoint does not know options that are younger than it.
        if name in before[part] and name not in FREE.get(part, ()) and before[part][name] != value
    ]
    if differ:
        raise ValueError(
            f"{newest} comes from a run with other options ({'; '.join(differ)}): "
            "give another --output_dir, or start anew in this one with --resume false"
        )
    return newest


def told_rows(heard: Heard) -> str:
    """A short name that follows from which recordings are trained on and what is said of them."""
    return digest([heard.recordings, heard.captions, heard.labels])


def check_rows(checkpoint: Path, rows: str) -> None:
    """Refuses to go on with other rows than a checkpoint was trained on.

    Args:
        checkpoint: as `last_checkpoint` gives it.
        rows: as `told_rows` names them now.

    Raises:
        ValueError: rows came, went, or are said to be something else.
    """
    # A checkpoint of before rows were told says nothing of them.
    before = json.loads((checkpoint / TOLD).read_text()).get("rows") or rows
    if before != rows:
        raise ValueError(
            f"{checkpoint} was trained on other rows: the data have changed since; give another "
            "--output_dir, or start anew in this one with --resume false"
        )


def start_anew(folder: Path) -> None:
    """Removes what an earlier run left to go on from.

    The Trainer keeps the checkpoints of the most steps: those of an earlier run would push out
    this one's own.
    """
    whole = [told.parent for told in folder.glob(f"checkpoint-*/{TOLD}")]
    for checkpoint in whole:
        shutil.rmtree(checkpoint)
    if whole:
        print(f"{len(whole)} checkpoints of an earlier run in {folder} are removed", flush=True)
