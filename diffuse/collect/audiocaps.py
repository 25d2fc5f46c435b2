"""Collect AudioCaps clips from its list and local audio files.

The list is a CSV file of AudioCaps (Kim et al. 2019) with the columns audiocap_id, youtube_id,
start_time and caption. Audio files are named YOUTUBEID_SECONDS or AUDIOCAPID (the clip), or
YOUTUBEID (the whole audio, from which the clip is extracted).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from align.audio.files import AudioError
from align.cli import CommandParser, argument_group
from diffuse.collect.media import is_longer_than, read_audio_segment, save_audio
from diffuse.collect.table import CollectionStats, MetadataTable, add_output_dir

COLUMNS = ("file_name", "caption", "label", "audiocap_id", "source_url")
REQUIRED_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
CLIP_S = 10.0
WHOLE_VIDEO_MARGIN_S = 1.0  # files longer than a clip by this much contain the whole audio


COMMAND = "python -m diffuse.collect.audiocaps"
EXAMPLES = (f"{COMMAND} train.csv AUDIO_DIR --output_dir audiocaps",)


def read_list(path: Path) -> list[dict[str, str]]:
    """Read an AudioCaps list.

    Args:
        path: CSV file.

    Raises:
        ValueError: If a column is missing, or a start time is not a number.
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
            raise ValueError(f"{path}, line {number}: start_time is not a number") from None
    return found


def collect(rows: Sequence[dict[str, str]], audio_dir: Path, output_dir: Path) -> CollectionStats:
    """Extract the clip of each row; captions of the same clip share a file.

    Args:
        rows: Rows of the list.
        audio_dir: Folder of audio files, searched recursively.
        output_dir: Output directory of audio/ and metadata.csv.
    """
    local = {p.stem: p for p in sorted(audio_dir.rglob("*")) if p.is_file()}
    table, stats = MetadataTable(output_dir, COLUMNS, "audiocap_id"), CollectionStats()
    for row in rows:
        if row["audiocap_id"] in table.keys:
            stats.existing += 1
            continue
        name = f"{row['youtube_id']}_{round(float(row['start_time']))}"
        path = local.get(name) or local.get(row["audiocap_id"]) or local.get(row["youtube_id"])
        if path is None:
            stats.skip(name, "without a local audio file")
            continue
        try:
            _save(path, row, output_dir / f"audio/{name}.flac")
        except AudioError as error:
            stats.skip(name, "unreadable or silent", str(error))
            continue
        url = f"https://www.youtube.com/watch?v={row['youtube_id']}&t={row['start_time']}"
        own = {"caption": row["caption"], "label": name, "audiocap_id": row["audiocap_id"]}
        line = {"file_name": f"audio/{name}.flac", **own, "source_url": url}
        table.add(line, row["audiocap_id"])
        stats.saved += 1
    return stats


def _save(path: Path, row: dict[str, str], to: Path) -> None:
    if to.exists():
        return  # another caption of the same clip
    whole = path.stem == row["youtube_id"] and is_longer_than(path, CLIP_S + WHOLE_VIDEO_MARGIN_S)
    start_s = float(row["start_time"]) if whole else 0.0
    save_audio(read_audio_segment(path, start_s, CLIP_S), to)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    data = argument_group(parser, "data")
    data.add_argument(
        "list", type=Path, help="CSV list of the dataset (train.csv, val.csv or test.csv)."
    )
    data.add_argument("audio_dir", type=Path, help="Folder of audio files, searched recursively.")
    add_output_dir(parser)
    options = parser.parse_args(arguments)
    try:
        stats = collect(read_list(options.list), options.audio_dir, options.output_dir)
    except (ValueError, OSError) as error:
        raise SystemExit(f"diffuse.collect.audiocaps: {error}") from error
    print(stats.report(options.output_dir))


if __name__ == "__main__":
    main()
