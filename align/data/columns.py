"""Map the columns of a dataset to audio, caption, label, clip and license."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import ClassLabel, Dataset, Features, List, Value

from align.data.captions import labels_to_caption, specific_labels
from align.data.errors import DataError

LICENSE_COLUMNS = ("licence", "license")  # accepted spellings, in order of preference


@dataclass(frozen=True)
class ColumnMapping:
    """Columns of a dataset.

    Attributes:
        audio: Column with the audio: paths or encoded bytes.
        caption: Column with the captions, or with labels that captions are made of.
        label: Column with the labels; rows with the same label are positives of each other. If the
            dataset lacks it, rows with the same caption are.
        license: Column with the licenses; None for the first of `LICENSE_COLUMNS` that exists.
        template: Template that turns labels into captions, with {} for the labels. None keeps
            strings unchanged and joins lists and class labels as plain words.
        clip: Columns that together identify a clip that has several rows; these rows share their
            label, and their audio is encoded once.
        splits: The dataset's own names of the splits train and test.
    """

    audio: str
    caption: str = "caption"
    label: str = "label"
    license: str | None = None
    template: str | None = None
    clip: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)

    def license_column(self, columns: Sequence[str]) -> str | None:
        """Return the license column among the columns of a dataset, or None."""
        names = LICENSE_COLUMNS if self.license is None else (self.license,)
        return next((name for name in names if name in columns), None)

    def text_columns(self, columns: Sequence[str]) -> list[str]:
        """Return the columns other than the audio that are read."""
        names = [self.caption, self.label, self.license_column(columns) or "", "fold", *self.clip]
        return list(dict.fromkeys(n for n in names if n in columns and n != self.audio))

    def resolve(
        self, dataset: str, columns: Sequence[str], given: Mapping[str, str]
    ) -> ColumnMapping:
        """Adapt this mapping to the columns that a dataset has.

        Args:
            dataset: Name of the dataset in messages.
            columns: Columns of the dataset.
            given: Column names passed by the user, by attribute of this class; used if the
                dataset lacks the column of this mapping.

        Raises:
            DataError: If a column is missing.
        """

        def pick(what: str, own: str) -> str:
            other = given.get(what, own)
            return other if own not in columns and other in columns else own

        found = replace(
            self,
            audio=pick("audio", self.audio),
            caption=pick("caption", self.caption),
            label=pick("label", self.label),
        )
        required = {"audio": found.audio, "caption": found.caption}
        label_column = given.get("label", ColumnMapping.label)
        if found.label not in columns and label_column != ColumnMapping.label:
            required["label"] = label_column  # optional unless the user names it
        if found.license:
            required["license"] = found.license
        missing = {name: column for name, column in required.items() if column not in columns}
        if missing:
            flags = " and ".join(f"--{name}_column" for name in missing)
            raise DataError(
                f"{dataset} has no column {' and no column '.join(missing.values())}; "
                f"it has: {', '.join(columns)}; name the right one with {flags}"
            )
        return found

    def row_reader(self, features: Features | None, columns: Sequence[str]) -> Callable[..., dict]:
        """Return a function from a row's text columns to its caption, label, clip and license."""
        named = features or {}
        caption = _value_reader(named.get(self.caption))
        label = _value_reader(named.get(self.label)) if self.label in columns else None
        license = self.license_column(columns)
        clip = self.clip if set(self.clip) <= set(columns) else ()

        def read_row(row: Mapping[str, Any]) -> dict[str, str]:
            text = self._to_caption(caption(row[self.caption]))
            name = self._to_label(label(row[self.label])) if label else ""
            clip_name = " ".join(str(row[column]) for column in clip)
            # Without a label, the clip or else the caption is the label.
            values = {"caption": text, "label": name or clip_name or text}
            if clip:
                values["clip"] = clip_name
            if license is not None:
                values["license"] = cell_to_text(row[license])
            return values

        return read_row

    def _to_label(self, value: str | list[str]) -> str:
        """Normalize several labels, so that their order and generic labels do not matter."""
        if isinstance(value, str) and "," in value and self.template and self.label == self.caption:
            value = _split(value)
        return _label_text(value)

    def _to_caption(self, value: str | list[str]) -> str:
        if isinstance(value, list) or self.template is not None:
            labels = value if isinstance(value, list) else _split(value)
            return labels_to_caption(labels, self.template or "{}")
        return value


def _split(labels: str) -> list[str]:
    """Split comma-separated labels as in FSD50K, specific ones first: "Bark,Dog,Animal"."""
    return [label.strip() for label in labels.split(",")]


def cell_to_text(value: Any) -> str:
    """Convert a cell to text, "" for an empty one.

    One empty cell in JSON lines turns a column of integers into floats, so 1.0 becomes "1".
    """
    if value is None or value != value:  # NaN is not equal to itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return text if text.strip() else ""


def cells_to_text(rows: Dataset, columns: Sequence[str]) -> Dataset:
    """Convert those of the given columns that contain floats with `cell_to_text`."""
    for column in columns:
        feature = rows.features.get(column)
        if isinstance(feature, Value) and feature.dtype.startswith("float"):
            texts = [cell_to_text(cell) for cell in rows[column]]
            rows = rows.remove_columns(column).add_column(column, texts)
    return rows


def _label_text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(sorted(specific_labels(sorted(value))))


def _value_reader(feature: Any) -> Callable[[Any], str | list[str]]:
    """Return a function from a column's values to a string or a list of labels."""
    if isinstance(feature, ClassLabel):
        return lambda value: [] if value is None else [feature.int2str(value)]
    inner = feature.feature if isinstance(feature, List) else None
    if isinstance(inner, ClassLabel):
        return lambda value: [inner.int2str(one) for one in value or []]

    def read(value: Any) -> str | list[str]:
        if isinstance(value, list | tuple):
            return [cell_to_text(one) for one in value if cell_to_text(one)]
        return cell_to_text(value)

    return read


@dataclass(frozen=True)
class HubDataset:
    """Dataset on the Hub, stored as data files.

    Attributes:
        repo_id: Hub id.
        columns: Columns of the dataset.
    """

    repo_id: str
    columns: ColumnMapping


# 51,000 Freesound clips with AudioSet labels, comma-separated ("Bark,Dog,Animal"). Other columns:
# title, mids, description, tags, uploader, license.
FSD50K = HubDataset(
    "nateraw/fsd50k", ColumnMapping("audio", caption="labels", label="labels", template="{}")
)
# Ten-second clips of videos. One caption per clip in train, five in validation and test, with one
# row per caption (45,200 rows in train, 2,200 in validation, 4,400 in test).
AUDIOCAPS = HubDataset(
    "OpenSound/AudioCaps", ColumnMapping("audio", clip=("youtube_id", "start_time"))
)
# Fifty classes in five folds, all in one split. Other columns: filename, target, esc10, src_file,
# take.
ESC50 = HubDataset(
    "ashraq/esc50",
    ColumnMapping(
        "audio", caption="category", label="category", template="{}", splits={"test": "train"}
    ),
)
