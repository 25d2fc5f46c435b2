"""AudioCaps from its list and local recordings.

`python -m diffuse.collect.audiocaps LIST AUDIO --out FOLDER`

The list is one of AudioCaps' own (Kim et al. 2019), with the columns audiocap_id, youtube_id,
start_time and caption. Recordings are named YOUTUBEID_SECONDS or AUDIOCAPID, the clip alone, or
YOUTUBEID: cut out of the whole where it is longer than a clip.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from align.audio.files import AudioError
from diffuse.collect.media import is_longer_than, read_audio_segment, save_audio
from diffuse.collect.table import CollectionStats, MetadataTable

COLUMNS = ("file_name", "caption", "label", "audiocap_id", "source_url")
REQUIRED_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
CLIP_S = 10.0
WHOLE_VIDEO_MARGIN_S = 1.0  # than a clip by this much: a whole recording, to be cut


def read_list(path: Path) -> list[dict[str, str]]:
    """The rows of an AudioCaps list.

    Raises:
        ValueError: it lacks a column, or a start is no number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = set(REQUIRED_COLUMNS) - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
        found = list(rows)
    for number, row in enumerate(found, 2):
        try:
            float(row["start_time"])
        except (TypeError, ValueError):
            raise ValueError(f"{path}, line {number}: start_time is no number") from None
    return found


def collect(rows: Sequence[dict[str, str]], audio_dir: Path, output_dir: Path) -> CollectionStats:
    """Cuts or copies the clip of every row; the captions of one clip share its file.

    Args:
        rows: of the list.
        audio: a folder, searched with its subfolders.
        out: where sounds/ and metadata.csv go.
    """
    local = {p.stem: p for p in sorted(audio_dir.rglob("*")) if p.is_file()}
    table, tally = MetadataTable(output_dir, COLUMNS, "audiocap_id"), CollectionStats()
    for row in rows:
        if row["audiocap_id"] in table.keys:
            tally.existing += 1
            continue
        name = f"{row['youtube_id']}_{round(float(row['start_time']))}"
        path = local.get(name) or local.get(row["audiocap_id"]) or local.get(row["youtube_id"])
        if path is None:
            tally.skip(name, "without a local recording")
            continue
        try:
            _save(path, row, output_dir / f"audio/{name}.flac")
        except AudioError as error:
            tally.skip(name, "unreadable or silent", str(error))
            continue
        url = f"https://www.youtube.com/watch?v={row['youtube_id']}&t={row['start_time']}"
        own = {"caption": row["caption"], "label": name, "audiocap_id": row["audiocap_id"]}
        line = {"file_name": f"audio/{name}.flac", **own, "source_url": url}
        table.add(line, row["audiocap_id"])
        tally.saved += 1
    return tally


def _save(path: Path, row: dict[str, str], to: Path) -> None:
    if to.exists():
        return  # another caption of the same clip
    whole = path.stem == row["youtube_id"] and is_longer_than(path, CLIP_S + WHOLE_VIDEO_MARGIN_S)
    start_s = float(row["start_time"]) if whole else 0.0
    save_audio(read_audio_segment(path, start_s, CLIP_S), to)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.collect.audiocaps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("list", type=Path, help="train.csv, val.csv or test.csv of AudioCaps")
    parser.add_argument("audio_dir", type=Path, help="a folder of recordings")
    parser.add_argument("--output_dir", type=Path, required=True, help="the folder to fill")
    options = parser.parse_args(arguments)
    try:
        tally = collect(read_list(options.list), options.audio_dir, options.output_dir)
    except (ValueError, OSError) as error:
        raise SystemExit(f"diffuse.collect.audiocaps: {error}") from error
    print(tally.report(options.output_dir))


if __name__ == "__main__":
    main()
