"""A folder of videos to pairs: `python -m diffuse.collect.videos VIDEOS --out FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.audio.files import AudioError
from align.audio.waveform import Window, windows
from diffuse.collect.media import SAMPLE_RATE, VIDEOS, frame_at, is_silent, save_frame, save_sound
from diffuse.collect.table import Table, Tally

COLUMNS = ("file_name", "image", "source", "start_s")
SHORTEST_S = 1.0  # a rest of a video that is shorter makes no pair


def collect(videos: Path, out: Path, every_s: float) -> Tally:
    """Cuts every video into stretches: the sound of each, and the frame in its middle.

    Args:
        videos: a folder, searched with its subfolders.
        out: where sounds/, images/ and metadata.csv go.
        every_s: the length of a stretch in seconds.

    Raises:
        ValueError: there is no video in the folder.
    """
    found = sorted(p for p in videos.rglob("*") if p.suffix.lower() in VIDEOS and p.is_file())
    if not found:
        raise ValueError(f"{videos} has no videos ({', '.join(VIDEOS)})")
    table, tally = Table(out, COLUMNS, "file_name"), Tally()
    for k, video in enumerate(found):
        print(f"{k + 1}/{len(found)} {video.name}", flush=True)
        try:
            for window in windows(video, SAMPLE_RATE, every_s):
                if len(window.samples) >= SHORTEST_S * SAMPLE_RATE:
                    _pair(window, video, videos, every_s, table, tally)
        except AudioError as error:
            tally.leave_out(video.name, "without readable sound", str(error))
    return tally


def _pair(
    window: Window, video: Path, videos: Path, length_s: float, table: Table, tally: Tally
) -> None:
    relative = video.relative_to(videos)
    # The suffix stays in the name: a.mp4 and a.mov are two videos.
    stem = "-".join(relative.parts).replace(".", "_") + f"-{round(window.start_s):06d}"
    sound, image = f"sounds/{stem}.flac", f"images/{stem}.jpg"
    if sound in table.keys:
        tally.there += 1
        return
    if is_silent(window.samples):
        tally.leave_out(f"{relative} at {window.start_s:g} s", "silent")
        return
    try:
        frame = frame_at(video, window.start_s + length_s / 2)
    except ValueError as error:
        tally.leave_out(f"{relative} at {window.start_s:g} s", "without a frame", str(error))
        return
    save_sound(window.samples, table.folder / sound)
    save_frame(frame, table.folder / image)
    row = {"file_name": sound, "image": image, "source": str(relative)}
    table.add({**row, "start_s": f"{window.start_s:g}"}, sound)
    tally.saved += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m diffuse.collect.videos", description=__doc__)
    parser.add_argument("videos", type=Path, help="a folder, searched with its subfolders")
    parser.add_argument("--out", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--every_s", type=float, default=10.0, help="seconds a pair")
    options = parser.parse_args(arguments)
    if options.every_s < 1:
        parser.error(f"--every_s is at least 1 second, not {options.every_s:g}")
    try:
        tally = collect(options.videos, options.out, options.every_s)
    except (ValueError, OSError) as error:
        raise SystemExit(f"diffuse.collect.videos: {error}") from error
    print(tally.report(options.out))


if __name__ == "__main__":
    main()
