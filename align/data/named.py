"""Data sets of the hub that are known by a short name, and how their columns say what is heard."""

from __future__ import annotations

from dataclasses import dataclass

from align.data.layout import Layout


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
