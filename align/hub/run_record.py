"""The record of a run: its options and the captions of its training rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from align.hub.model_card import RUN_RECORD_NAME


def write_run_record(
    folder: Path, options: dict[str, Any], recipe: dict[str, Any], record: TrainingRecord
) -> None:
    """Write the record of a run to the folder of its encoder.

    Args:
        folder: Folder of the encoder.
        options: Options of the run, by dataclass.
        recipe: Options that differ from the defaults.
        record: Labels, captions and licenses of the training rows.
    """
    data = {"options": options, "recipe": recipe} | asdict(record)
    text = json.dumps(data, indent=1)
    (folder / RUN_RECORD_NAME).write_text(text + "\n")


def load(run_dir: str) -> tuple[dict[str, Any], TrainingRecord]:
    """Load the record of a run.

    Args:
        run_dir: Folder of the run. It may have no record.

    Returns:
        The data options of the run, and the labels and captions of its training rows.

    Raises:
        ValueError: If the file is damaged.
    """
    path = Path(run_dir) / RUN_RECORD_NAME
    if not path.exists():
        return {}, TrainingRecord({})
    try:
        data = json.loads(path.read_text("utf-8"))
        record = TrainingRecord(
            data["captions"], data.get("licenses", {}), data.get("rows_digest", "")
        )
        return data["options"]["data"], record
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a run record of align.train: {error!r}") from error


@dataclass
class TrainingRecord:
    """Labels, captions and licenses of training rows.

    Attributes:
        captions: Captions by label, {label: [caption, ...]}, with repetitions.
        licenses: Number of clips by license; empty if none is stated.
        rows_digest: Digest of the rows; empty if unknown.
    """

    captions: dict[str, list[str]]
    licenses: dict[str, int] = field(default_factory=dict)
    rows_digest: str = ""

    def with_rows(self, labels: Sequence[str], captions: Sequence[str]) -> TrainingRecord:
        """Return a record with further rows, of labels that are not in this one."""
        more = {label: list(texts) for label, texts in self.captions.items()}
        for label, caption in zip(labels, captions, strict=True):
            if label not in self.captions:
                more.setdefault(label, []).append(caption)
        return replace(self, captions=more)

    def most_frequent_caption(self, label: str) -> str:
        """Return the most frequent caption of a label; ties are in alphabetical order."""
        counts = Counter(self.captions[label])
        return min(counts, key=lambda text: (-counts[text], text))
