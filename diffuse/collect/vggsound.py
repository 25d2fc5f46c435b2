"""Collect VGGSound clips from its list and local videos.

The list is vggsound.csv (Chen et al. 2020, arXiv 2004.14368), without a header: YouTube id, start
in seconds, label, split. Videos are named ID_SECONDS.mp4 (six digits, the clip) or ID.mp4 (the
whole video, from which the clip is extracted).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from align.cli import CommandParser, argument_group
from diffuse.collect.media import (
    VIDEO_EXTENSIONS,
    read_audio_segment,
    read_frame,
    save_audio,
    save_frame,
)
from diffuse.collect.table import CollectionStats, MetadataTable, add_output_dir

COLUMNS = ("file_name", "image", "caption", "label", "split", "source_url")
CLIP_S = 10.0


COMMAND = "python -m diffuse.collect.vggsound"
EXAMPLES = (
    f"{COMMAND} vggsound.csv VIDEO_DIR --output_dir vggsound",
    f"{COMMAND} vggsound.csv VIDEO_DIR --labels 'dog barking' --output_dir dogs",
)


@dataclass(frozen=True)
class VGGSoundEntry:
    """A line of the list.

    Attributes:
        video_id: YouTube id.
        start_s: Start of the clip in seconds.
        label: Class label.
        split: "train" or "test".
    """

    video_id: str
    start_s: int
    label: str
    split: str

    @property
    def name(self) -> str:
        """Base name of the files of this entry."""
        return f"{self.video_id}_{self.start_s:06d}"


def read_list(path: Path) -> Iterator[VGGSoundEntry]:
    """Read vggsound.csv.

    Args:
        path: CSV file.

    Raises:
        ValueError: If a line is not id, seconds, label, split.
    """
    with path.open(newline="", encoding="utf-8") as file:
        for number, line in enumerate(csv.reader(file), 1):
            if len(line) != 4 or not line[1].strip().isdigit():
                raise ValueError(
                    f"{path}, line {number}: expected id, seconds, label, split, got {line}"
                )
            yield VGGSoundEntry(line[0].strip(), int(line[1]), line[2].strip(), line[3].strip())


def collect(
    entries: Sequence[VGGSoundEntry],
    video_dir: Path,
    output_dir: Path,
    labels: Sequence[str] | None = None,
) -> CollectionStats:
    """Extract the clip of each entry and its middle frame.

    Args:
        entries: Entries of the list.
        video_dir: Folder of videos, searched recursively.
        output_dir: Output directory of audio/, images/ and metadata.csv.
        labels: Labels to keep. Defaults to all.

    Raises:
        ValueError: If a label is not in the list.
    """
    unknown = set(labels or ()) - {entry.label for entry in entries}
    if unknown:
        raise ValueError(f"no entry has the label {', '.join(sorted(unknown))}")
    local = {
        p.stem: p for p in sorted(video_dir.rglob("*")) if p.suffix.lower() in VIDEO_EXTENSIONS
    }
    table, stats = MetadataTable(output_dir, COLUMNS, "file_name"), CollectionStats()
    for entry in entries:
        if labels and entry.label not in labels:
            continue
        if f"audio/{entry.name}.flac" in table.keys:
            stats.existing += 1
            continue
        video, start_s = local.get(entry.name), 0.0
        if video is None:
            video, start_s = local.get(entry.video_id), float(entry.start_s)
        if video is None:
            stats.skip(entry.name, "without a local video")
            continue
        _add(entry, video, start_s, table, stats)
    return stats


def _add(
    entry: VGGSoundEntry, video: Path, start_s: float, table: MetadataTable, stats: CollectionStats
) -> None:
    audio, image = f"audio/{entry.name}.flac", f"images/{entry.name}.jpg"
    try:
        samples = read_audio_segment(video, start_s, CLIP_S)
        frame = read_frame(video, start_s + CLIP_S / 2)
    except ValueError as error:  # including AudioError
        stats.skip(entry.name, "unreadable or silent", str(error))
        return
    save_audio(samples, table.folder / audio)
    save_frame(frame, table.folder / image)
    row = {"file_name": audio, "image": image, "caption": entry.label, "label": entry.label}
    url = f"https://www.youtube.com/watch?v={entry.video_id}&t={entry.start_s}"
    table.add({**row, "split": entry.split, "source_url": url}, audio)
    stats.saved += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    data = argument_group(parser, "data")
    data.add_argument("list", type=Path, help="CSV list of the dataset (vggsound.csv).")
    data.add_argument("video_dir", type=Path, help="Folder of videos, searched recursively.")
    data.add_argument("--labels", nargs="+", help="Labels to keep. Defaults to all.")
    add_output_dir(parser)
    options = parser.parse_args(arguments)
    try:
        entries = list(read_list(options.list))
        stats = collect(entries, options.video_dir, options.output_dir, options.labels)
    except (ValueError, OSError) as error:
        raise SystemExit(f"diffuse.collect.vggsound: {error}") from error
    print(stats.report(options.output_dir))


if __name__ == "__main__":
    main()
