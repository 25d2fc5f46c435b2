"""A run's folder: what was asked of it, which stages are done, where a killed one goes on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from align.preprocessing.cache import digest
from align.preprocessing.fingerprint import recording_names, told_recordings
from diffuse.models.saving import read_json

if TYPE_CHECKING:
    from diffuse.config.options import Options
    from diffuse.data.pairs import Pairs


PARTS = ("model", "data", "loss", "training")  # of what a run tells, what is read again
TOLD, WHOLE, DONE = "run.json", "whole", "done"
# Of the Trainer's options, those that decide the weights.
DECISIVE = (
    "seed", "num_train_epochs", "max_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "learning_rate", "gate_rate_factor", "weight_decay",
    "lr_scheduler_type", "warmup_steps", "max_grad_norm", "ema_decay", "bf16", "fp16",
)  # fmt: skip
# Of the data's, those that do not.
FREE = ("workers", "cache", "cache_dir", "eval_folds", "eval_data")


def told_options(options: Options) -> dict[str, Any]:
    """The options of a run that decide its weights, by theme, as JSON holds them."""
    parts = {name: asdict(getattr(options, name)) for name in ("model", "data", "loss", "recall")}
    parts["training"] = {name: getattr(options.training, name) for name in DECISIVE}
    return dict(json.loads(json.dumps(parts)))


def begin(folder: Path, options: Options, write: bool = True) -> None:
    """Notes what a run is asked for; where it was begun before, checks that it was the same.

    Args:
        folder: the run's.
        options: of the run.
        write: false in all but the first of several processes.

    Raises:
        ValueError: the folder has a run with other options that would be gone on from.
    """
    path, told = folder / TOLD, told_options(options)
    pairs: dict[str, str] = {}
    if options.training.resume and path.exists():
        before = json.loads(path.read_text())
        pairs = {"pairs": before["pairs"]} if "pairs" in before else {}
        differ = [
            f"{name} was {before.get(part, {}).get(name)!r} and is {value!r}"
            for part, values in told.items()
            for name, value in values.items()
            if not (part == "data" and name in FREE) and before.get(part, {}).get(name) != value
        ]
        if differ:
            raise ValueError(
                f"{folder} has a run with other options ({'; '.join(differ)}): "
                "give another --output_dir, or start anew in this one with --resume false"
            )
    elif write and folder.is_dir():
        for marker in (*folder.glob(f"stage-*/{DONE}"), *folder.glob(f"stage-*/*/{WHOLE}")):
            marker.unlink()  # what an earlier run left is no longer gone on from
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told | pairs, indent=1) + "\n")


def check_pairs(folder: Path, pairs: Pairs) -> None:
    """Notes what a run trains on; where it was begun before, checks that it was the same.

    Raises:
        ValueError: pairs came, went, or are said to be something else.
    """
    path = folder / TOLD
    found = json.loads(path.read_text())
    names = recording_names(pairs.rows.with_format(None))  # which makes no sound
    now = digest([names, _images(pairs.rows), pairs.captions, pairs.labels, pairs.phrases])
    if found.get("pairs", now) != now:
        raise ValueError(
            f"{folder} has a run on other pairs: the data have changed since; give another "
            "--output_dir, or start anew in this one with --resume false"
        )
    path.write_text(json.dumps(found | {"pairs": now}, indent=1) + "\n")


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


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a stage; one that a kill left half written is passed over."""
    whole = [marker.parent for marker in folder.glob(f"checkpoint-*/{WHOLE}")]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)
