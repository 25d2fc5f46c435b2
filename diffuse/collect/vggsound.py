"""VGGSound from its list and local videos.

`python -m diffuse.collect.vggsound LIST VIDEO_EXTENSIONS --out FOLDER`

The list is vggsound.csv (Chen et al. 2020, arXiv 2004.14368), without a header: YouTube id, start
in seconds, label, split. Videos are named ID_SECONDS.mp4 (six digits, the clip alone) or ID.mp4
(the whole video, from which the clip is cut).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffuse.collect.media import (
    VIDEO_EXTENSIONS,
    read_audio_segment,
    read_frame,
    save_audio,
    save_frame,
)
from diffuse.collect.table import CollectionStats, MetadataTable

COLUMNS = ("file_name", "image", "caption", "label", "split", "source_url")
CLIP_S = 10.0


@dataclass(frozen=True)
class VGGSoundEntry:
    """A line of the list."""

    video_id: str
    start_s: int
    label: str
    split: str

    @property
    def name(self) -> str:
        """What files of this entry are called."""
        return f"{self.video_id}_{self.start_s:06d}"


def read_list(path: Path) -> Iterator[VGGSoundEntry]:
    """The lines of vggsound.csv.

    Raises:
        ValueError: a line is not id, seconds, label, split.
    """
    with path.open(newline="", encoding="utf-8") as file:
        for number, line in enumerate(csv.reader(file), 1):
            if len(line) != 4 or not line[1].strip().isdigit():
                raise ValueError(f"{path}, line {number}: not id, seconds, label, split: {line}")
            yield VGGSoundEntry(line[0].strip(), int(line[1]), line[2].strip(), line[3].strip())


def collect(
    entries: Sequence[VGGSoundEntry],
    video_dir: Path,
    output_dir: Path,
    labels: Sequence[str] | None = None,
) -> CollectionStats:
    """Cuts each entry's clip and the frame in its middle.

    Args:
        entries: of the list.
        videos: a folder, searched with its subfolders.
        out: where sounds/, images/ and metadata.csv go.
        labels: keep only these; all by default.

    Raises:
        ValueError: a label is not in the list.
    """
    unknown = set(labels or ()) - {entry.label for entry in entries}
    if unknown:
        raise ValueError(f"no entry has the label {', '.join(sorted(unknown))}")
    local = {
        p.stem: p for p in sorted(video_dir.rglob("*")) if p.suffix.lower() in VIDEO_EXTENSIONS
    }
    table, tally = MetadataTable(output_dir, COLUMNS, "file_name"), CollectionStats()
    for entry in entries:
        if labels and entry.label not in labels:
            continue
        if f"audio/{entry.name}.flac" in table.keys:
            tally.existing += 1
            continue
        video, start_s = local.get(entry.name), 0.0
        if video is None:
            video, start_s = local.get(entry.video_id), float(entry.start_s)
        if video is None:
            tally.skip(entry.name, "without a local video")
            continue
        _add(entry, video, start_s, table, tally)
    return tally


def _add(
    entry: VGGSoundEntry, video: Path, start_s: float, table: MetadataTable, tally: CollectionStats
) -> None:
    audio, image = f"audio/{entry.name}.flac", f"images/{entry.name}.jpg"
    try:
        samples = read_audio_segment(video, start_s, CLIP_S)
        frame = read_frame(video, start_s + CLIP_S / 2)
    except ValueError as error:  # AudioError is one
        tally.skip(entry.name, "unreadable or silent", str(error))
        return
    save_audio(samples, table.folder / audio)
    save_frame(frame, table.folder / image)
    row = {"file_name": audio, "image": image, "caption": entry.label, "label": entry.label}
    url = f"https://www.youtube.com/watch?v={entry.video_id}&t={entry.start_s}"
    table.add({**row, "split": entry.split, "source_url": url}, audio)
    tally.saved += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.collect.vggsound",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("list", type=Path, help="vggsound.csv")
    parser.add_argument("video_dir", type=Path, help="a folder of videos")
    parser.add_argument("--output_dir", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--labels", nargs="+", help="keep only these labels")
    options = parser.parse_args(arguments)
    try:
        entries = list(read_list(options.list))
        tally = collect(entries, options.video_dir, options.output_dir, options.labels)
    except (ValueError, OSError) as error:
        raise SystemExit(f"diffuse.collect.vggsound: {error}") from error
    print(tally.report(options.output_dir))


if __name__ == "__main__":
    main()
