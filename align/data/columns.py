"""How a data set's columns say what is heard: by which names, and in labels or in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import ClassLabel, Dataset, Features, List, Value

from align.data.captions import caption_of, particular
from align.data.errors import DataError

LICENCES = ("licence", "license")


@dataclass(frozen=True)
class Layout:
    """The columns of a data set.

    Attributes:
        recording: a path, or a recording's bytes.
        caption: a sentence; or one or several labels, from which a caption is made.
        label: rows of one label say the same; without the column, rows of one caption do.
        licence: of each recording; by default whichever of `LICENCES` there is.
        template: what is said around labels, {} in their place. None leaves strings as they are
            and gives lists and class labels as bare words.
        clip: columns that name a recording together, where it has several rows; such rows say the
            same, and are heard once.
        splits: the data set's own names of the splits train and test.
    """

    recording: str
    caption: str = "caption"
    label: str = "label"
    licence: str | None = None
    template: str | None = None
    clip: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)

    def licence_column(self, columns: Sequence[str]) -> str | None:
        """The column of licences among those there are; None where there is none."""
        names = LICENCES if self.licence is None else (self.licence,)
        return next((name for name in names if name in columns), None)

    def light(self, columns: Sequence[str]) -> list[str]:
        """The columns that say something of a recording, without the recording itself."""
        names = [self.caption, self.label, self.licence_column(columns) or "", "fold", *self.clip]
        return list(dict.fromkeys(n for n in names if n in columns and n != self.recording))

    def fitted(self, data: str, columns: Sequence[str], given: Mapping[str, str]) -> Layout:
        """This layout for a data set's columns.

        Args:
            data: the data set's name.
            columns: that it has.
            given: names that were given for this layout's columns, by its attributes; they count
                where a column is not there by its own name.

        Raises:
            DataError: a column is missing.
        """

        def named(what: str, own: str) -> str:
            other = given.get(what, own)
            return other if own not in columns and other in columns else own

        found = replace(
            self,
            recording=named("recording", self.recording),
            caption=named("caption", self.caption),
            label=named("label", self.label),
        )
        needed = {"recording": found.recording, "caption": found.caption}
        asked = given.get("label", Layout.label)
        if found.label not in columns and asked != Layout.label:
            needed["label"] = asked  # which is optional, but not where somebody names it
        if found.licence:
            needed["licence"] = found.licence
        missing = {name: column for name, column in needed.items() if column not in columns}
        if missing:
            flags = " and ".join(f"--{name}_column" for name in missing)
            raise DataError(
                f"{data} has no column {' and no column '.join(missing.values())}; "
                f"it has: {', '.join(columns)}; name what is meant by {flags}"
            )
        return found

    def sayer(self, features: Features | None, columns: Sequence[str]) -> Callable[..., dict]:
        """A function from a row's light columns to its caption, label, clip and licence."""
        named = features or {}
        caption = _reader(named.get(self.caption))
        label = _reader(named.get(self.label)) if self.label in columns else None
        licence = self.licence_column(columns)
        clip = self.clip if set(self.clip) <= set(columns) else ()

        def say(row: Mapping[str, Any]) -> dict[str, str]:
            text = self._caption(caption(row[self.caption]))
            name = self._label(label(row[self.label])) if label else ""
            place = " ".join(str(row[column]) for column in clip)
            # A row without a label says what its clip or its caption says.
            said = {"caption": text, "label": name or place or text}
            if clip:
                said["clip"] = place
            if licence is not None:
                said["licence"] = written(row[licence])
            return said

        return say

    def _label(self, said: str | list[str]) -> str:
        """Labels in one string name the same however they are ordered, and whatever families."""
        if isinstance(said, str) and "," in said and self.template and self.label == self.caption:
            said = _split(said)
        return _words(said)

    def _caption(self, said: str | list[str]) -> str:
        if isinstance(said, list) or self.template is not None:
            labels = said if isinstance(said, list) else _split(said)
            return caption_of(labels, self.template or "{}")
        return said


def _split(labels: str) -> list[str]:
    """FSD50K writes labels in one string, the particular one first: "Bark,Dog,Animal"."""
    return [label.strip() for label in labels.split(",")]


def written(value: Any) -> str:
    """A cell in words, "" for an empty one.

    In JSON lines one empty cell makes floats of a whole column of integers: 1.0 was written as 1.
    """
    if value is None or value != value:  # NaN alone differs from itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return text if text.strip() else ""


def rewritten(rows: Dataset, columns: Sequence[str]) -> Dataset:
    """Rows whose cells are as `written` has them, in those of some columns that hold floats."""
    for column in columns:
        feature = rows.features.get(column)
        if isinstance(feature, Value) and feature.dtype.startswith("float"):
            texts = [written(cell) for cell in rows[column]]
            rows = rows.remove_columns(column).add_column(column, texts)
    return rows


def _words(said: str | list[str]) -> str:
    return said if isinstance(said, str) else ", ".join(sorted(particular(sorted(said))))


def _reader(feature: Any) -> Callable[[Any], str | list[str]]:
    """What a column's values say: a string, or a list of labels."""
    if isinstance(feature, ClassLabel):
        return lambda value: [] if value is None else [feature.int2str(value)]
    inner = feature.feature if isinstance(feature, List) else None
    if isinstance(inner, ClassLabel):
        return lambda value: [inner.int2str(one) for one in value or []]

    def read(value: Any) -> str | list[str]:
        if isinstance(value, list | tuple):
            return [written(one) for one in value if written(one)]
        return written(value)

    return read


@dataclass(frozen=True)
class Named:
    """A data set of the hub.

    Attributes:
        hub: its id; data files, in the columns of `layout`.
        layout: its columns.
    """

    hub: str
    layout: Layout


# 51 thousand clips of Freesound with AudioSet's labels, several a clip in one string
# ("Bark,Dog,Animal"), beside title, mids, description, tags, uploader, and a licence a clip.
FSD50K = Named("nateraw/fsd50k", Layout("audio", caption="labels", label="labels", template="{}"))
# Ten seconds of a video each: one caption a recording to train on, five to measure by, each a row
# (45.2 thousand rows in train, 2.2 in validation, 4.4 in test).
AUDIOCAPS = Named("OpenSound/AudioCaps", Layout("audio", clip=("youtube_id", "start_time")))
# Fifty classes in five folds; everything is in one split. Beside: filename, target, esc10,
# src_file, take.
ESC50 = Named(
    "ashraq/esc50",
    Layout("audio", caption="category", label="category", template="{}", splits={"test": "train"}),
)
