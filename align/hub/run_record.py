"""What a run leaves for people: figures, and sounds beside the pictures they drew."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from align.hub.model_card import RUN_RECORD_NAME


def tell(
    folder: Path, options: dict[str, Any], recipe: dict[str, Any], record: TrainingRecord
) -> None:
    """Writes what an encoder was trained on beside it.

    Args:
        folder: the encoder's.
        options: of the run, by theme.
        recipe: those of them that a recipe of this run states.
        known: labels, captions and licences of its rows.
    """
    data = {"options": options, "recipe": recipe} | asdict(record)
    text = json.dumps(data, indent=1)
    (folder / RUN_RECORD_NAME).write_text(text + "\n")


def load(run_dir: str) -> tuple[dict[str, Any], TrainingRecord]:
    """What a run's folder tells of its data: the options of its data, and captions by label.

    Raises:
        ValueError: the file that tells it is damaged.
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
        raise ValueError(f"{path} is not what align.train wrote: {error!r}") from error


@dataclass
class TrainingRecord:
    """The captions by label that an encoder was trained on: {label: [caption, ...]}.

    Repeated captions count as often as they stand there.

    Attributes:
        captions: see above.
        licences: how many of the recordings state which licence; empty where none do.
        rows: a name that follows from the rows; empty where that is not known.
    """

    captions: dict[str, list[str]]
    licenses: dict[str, int] = field(default_factory=dict)
    rows_digest: str = ""

    def with_rows(self, labels: Sequence[str], captions: Sequence[str]) -> TrainingRecord:
        """These, and the labels of further rows that are not among them."""
        more = {label: list(texts) for label, texts in self.captions.items()}
        for label, caption in zip(labels, captions, strict=True):
            if label not in self.captions:
                more.setdefault(label, []).append(caption)
        return replace(self, captions=more)

    def most_frequent_caption(self, label: str) -> str:
        """The label's most frequent caption; of equally frequent ones, the alphabet's first."""
        counts = Counter(self.captions[label])
        return min(counts, key=lambda text: (-counts[text], text))
