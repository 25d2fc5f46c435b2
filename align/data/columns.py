"""How a data set's columns say what is heard: by which names, and in labels or in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import ClassLabel, Dataset, Features, List, Value

from align.data.captions import labels_to_caption, specific_labels
from align.data.errors import DataError

LICENSE_COLUMNS = ("licence", "license")


@dataclass(frozen=True)
class ColumnMapping:
    """The columns of a data set.

    Attributes:
        recording: a path, or a recording's bytes.
        caption: a sentence; or one or several labels, from which a caption is made.
        label: rows of one label say the same; without the column, rows of one caption do.
        licence: of each recording; by default whichever of `LICENSE_COLUMNS` there is.
        template: what is said around labels, {} in their place. None leaves strings as they are
            and gives lists and class labels as bare words.
        clip: columns that name a recording together, where it has several rows; such rows say the
            same, and are heard once.
        splits: the data set's own names of the splits train and test.
    """

    audio: str
    caption: str = "caption"
    label: str = "label"
    license: str | None = None
    template: str | None = None
    clip: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)

    def license_column(self, columns: Sequence[str]) -> str | None:
        """The column of licences among those there are; None where there is none."""
        names = LICENSE_COLUMNS if self.license is None else (self.license,)
        return next((name for name in names if name in columns), None)

    def text_columns(self, columns: Sequence[str]) -> list[str]:
        """The columns that say something of a recording, without the recording itself."""
        names = [self.caption, self.label, self.license_column(columns) or "", "fold", *self.clip]
        return list(dict.fromkeys(n for n in names if n in columns and n != self.audio))

    def resolve(
        self, dataset: str, columns: Sequence[str], given: Mapping[str, str]
    ) -> ColumnMapping:
        """This layout for a data set's columns.

        Args:
            data: the data set's name.
            columns: that it has.
            given: names that were given for this layout's columns, by its attributes; they count
                where a column is not there by its own name.

        Raises:
            DataError: a column is missing.
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
            required["label"] = label_column  # which is optional, but not where somebody names it
        if found.license:
            required["license"] = found.license
        missing = {name: column for name, column in required.items() if column not in columns}
        if missing:
            flags = " and ".join(f"--{name}_column" for name in missing)
            raise DataError(
                f"{dataset} has no column {' and no column '.join(missing.values())}; "
                f"it has: {', '.join(columns)}; name what is meant by {flags}"
            )
        return found

    def row_reader(self, features: Features | None, columns: Sequence[str]) -> Callable[..., dict]:
        """A function from a row's light columns to its caption, label, clip and licence."""
        named = features or {}
        caption = _value_reader(named.get(self.caption))
        label = _value_reader(named.get(self.label)) if self.label in columns else None
        license = self.license_column(columns)
        clip = self.clip if set(self.clip) <= set(columns) else ()

        def read_row(row: Mapping[str, Any]) -> dict[str, str]:
            text = self._to_caption(caption(row[self.caption]))
            name = self._to_label(label(row[self.label])) if label else ""
            place = " ".join(str(row[column]) for column in clip)
            # A row without a label says what its clip or its caption says.
            values = {"caption": text, "label": name or place or text}
            if clip:
                values["clip"] = place
            if license is not None:
                values["license"] = cell_to_text(row[license])
            return values

        return read_row

    def _to_label(self, value: str | list[str]) -> str:
        """Labels in one string name the same however they are ordered, and whatever families."""
        if isinstance(value, str) and "," in value and self.template and self.label == self.caption:
            value = _split(value)
        return _label_text(value)

    def _to_caption(self, value: str | list[str]) -> str:
        if isinstance(value, list) or self.template is not None:
            labels = value if isinstance(value, list) else _split(value)
            return labels_to_caption(labels, self.template or "{}")
        return value


def _split(labels: str) -> list[str]:
    """FSD50K writes labels in one string, the particular one first: "Bark,Dog,Animal"."""
    return [label.strip() for label in labels.split(",")]


def cell_to_text(value: Any) -> str:
    """A cell in words, "" for an empty one.

    In JSON lines one empty cell makes floats of a whole column of integers: 1.0 was written as 1.
    """
    if value is None or value != value:  # NaN alone differs from itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return text if text.strip() else ""


def cells_to_text(rows: Dataset, columns: Sequence[str]) -> Dataset:
    """Rows whose cells are as `cell_to_text` has them, in those of some columns that hold floats."""
    for column in columns:
        feature = rows.features.get(column)
        if isinstance(feature, Value) and feature.dtype.startswith("float"):
            texts = [cell_to_text(cell) for cell in rows[column]]
            rows = rows.remove_columns(column).add_column(column, texts)
    return rows


def _label_text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(sorted(specific_labels(sorted(value))))


def _value_reader(feature: Any) -> Callable[[Any], str | list[str]]:
    """What a column's values say: a string, or a list of labels."""
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
    """A data set of the hub.

    Attributes:
        hub: its id; data files, in the columns of `columns`.
        layout: its columns.
    """

    repo_id: str
    columns: ColumnMapping


# 51 thousand clips of Freesound with AudioSet's labels, several a clip in one string
# ("Bark,Dog,Animal"), beside title, mids, description, tags, uploader, and a licence a clip.
FSD50K = HubDataset(
    "nateraw/fsd50k", ColumnMapping("audio", caption="labels", label="labels", template="{}")
)
# Ten seconds of a video each: one caption a recording to train on, five to measure by, each a row
# (45.2 thousand rows in train, 2.2 in validation, 4.4 in test).
AUDIOCAPS = HubDataset(
    "OpenSound/AudioCaps", ColumnMapping("audio", clip=("youtube_id", "start_time"))
)
# Fifty classes in five folds; everything is in one split. Beside: filename, target, esc10,
# src_file, take.
ESC50 = HubDataset(
    "ashraq/esc50",
    ColumnMapping(
        "audio", caption="category", label="category", template="{}", splits={"test": "train"}
    ),
)
