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
from diffuse.collect.media import lasts, save_sound, sound_between
from diffuse.collect.table import Table, Tally

COLUMNS = ("file_name", "caption", "label", "audiocap_id", "source_url")
NEEDED = ("audiocap_id", "youtube_id", "start_time", "caption")
CLIP_S = 10.0
LONGER_S = 1.0  # than a clip by this much: a whole recording, to be cut


def read_list(path: Path) -> list[dict[str, str]]:
    """The rows of an AudioCaps list.

    Raises:
        ValueError: it lacks a column, or a start is no number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = set(NEEDED) - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
        found = list(rows)
    for number, row in enumerate(found, 2):
        try:
            float(row["start_time"])
        except (TypeError, ValueError):
            raise ValueError(f"{path}, line {number}: start_time is no number") from None
    return found


def collect(rows: Sequence[dict[str, str]], audio: Path, out: Path) -> Tally:
    """Cuts or copies the clip of every row; the captions of one clip share its file.

    Args:
        rows: of the list.
        audio: a folder, searched with its subfolders.
        out: where sounds/ and metadata.csv go.
    """
    local = {p.stem: p for p in sorted(audio.rglob("*")) if p.is_file()}
    table, tally = Table(out, COLUMNS, "audiocap_id"), Tally()
    for row in rows:
        if row["audiocap_id"] in table.keys:
            tally.there += 1
            continue
        name = f"{row['youtube_id']}_{round(float(row['start_time']))}"
        path = local.get(name) or local.get(row["audiocap_id"]) or local.get(row["youtube_id"])
        if path is None:
            tally.leave_out(name, "without a local recording")
            continue
        try:
            _save(path, row, out / f"sounds/{name}.flac")
        except AudioError as error:
            tally.leave_out(name, "unreadable or silent", str(error))
            continue
        url = f"https://www.youtube.com/watch?v={row['youtube_id']}&t={row['start_time']}"
        own = {"caption": row["caption"], "label": name, "audiocap_id": row["audiocap_id"]}
        line = {"file_name": f"sounds/{name}.flac", **own, "source_url": url}
        table.add(line, row["audiocap_id"])
        tally.saved += 1
    return tally


def _save(path: Path, row: dict[str, str], to: Path) -> None:
    if to.exists():
        return  # another caption of the same clip
    whole = path.stem == row["youtube_id"] and lasts(path, CLIP_S + LONGER_S)
    start_s = float(row["start_time"]) if whole else 0.0
    save_sound(sound_between(path, start_s, CLIP_S), to)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.collect.audiocaps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("list", type=Path, help="train.csv, val.csv or test.csv of AudioCaps")
    parser.add_argument("audio", type=Path, help="a folder of recordings")
    parser.add_argument("--out", type=Path, required=True, help="the folder to fill")
    options = parser.parse_args(arguments)
    try:
        tally = collect(read_list(options.list), options.audio, options.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"diffuse.collect.audiocaps: {error}") from error
    print(tally.report(options.out))


if __name__ == "__main__":
    main()
