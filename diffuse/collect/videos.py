"""A folder of videos to pairs: `python -m diffuse.collect.videos VIDEO_EXTENSIONS --out FOLDER`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.audio.files import AudioError
from align.audio.waveform import Window, windows
from diffuse.collect.media import (
    SAMPLE_RATE,
    VIDEO_EXTENSIONS,
    is_silent,
    read_frame,
    save_audio,
    save_frame,
)
from diffuse.collect.table import CollectionStats, MetadataTable

COLUMNS = ("file_name", "image", "source", "start_s")
MIN_CLIP_S = 1.0  # a rest of a video that is shorter makes no pair


def collect(video_dir: Path, output_dir: Path, clip_length_s: float) -> CollectionStats:
    """Cuts every video into stretches: the sound of each, and the frame in its middle.

    Args:
        videos: a folder, searched with its subfolders.
        out: where sounds/, images/ and metadata.csv go.
        every_s: the length of a stretch in seconds.

    Raises:
        ValueError: there is no video in the folder.
    """
    found = sorted(
        p for p in video_dir.rglob("*") if p.suffix.lower() in VIDEO_EXTENSIONS and p.is_file()
    )
    if not found:
        raise ValueError(f"{video_dir} has no videos ({', '.join(VIDEO_EXTENSIONS)})")
    table, tally = MetadataTable(output_dir, COLUMNS, "file_name"), CollectionStats()
    for k, video in enumerate(found):
        print(f"{k + 1}/{len(found)} {video.name}", flush=True)
        try:
            for window in windows(video, SAMPLE_RATE, clip_length_s):
                if len(window.samples) >= MIN_CLIP_S * SAMPLE_RATE:
                    _add(window, video, video_dir, clip_length_s, table, tally)
        except AudioError as error:
            tally.skip(video.name, "without readable sound", str(error))
    return tally


def _add(
    window: Window,
    video: Path,
    video_dir: Path,
    clip_length_s: float,
    table: MetadataTable,
    tally: CollectionStats,
) -> None:
    relative = video.relative_to(video_dir)
    # The suffix stays in the name: a.mp4 and a.mov are two videos.
    stem = "-".join(relative.parts).replace(".", "_") + f"-{round(window.start_s):06d}"
    audio, image = f"audio/{stem}.flac", f"images/{stem}.jpg"
    if audio in table.keys:
        tally.existing += 1
        return
    if is_silent(window.samples):
        tally.skip(f"{relative} at {window.start_s:g} s", "silent")
        return
    try:
        frame = read_frame(video, window.start_s + clip_length_s / 2)
    except ValueError as error:
        tally.skip(f"{relative} at {window.start_s:g} s", "without a frame", str(error))
        return
    save_audio(window.samples, table.folder / audio)
    save_frame(frame, table.folder / image)
    row = {"file_name": audio, "image": image, "source": str(relative)}
    table.add({**row, "start_s": f"{window.start_s:g}"}, audio)
    tally.saved += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m diffuse.collect.videos", description=__doc__)
    parser.add_argument("video_dir", type=Path, help="a folder, searched with its subfolders")
    parser.add_argument("--output_dir", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--clip_length_s", type=float, default=10.0, help="seconds a pair")
    options = parser.parse_args(arguments)
    if options.clip_length_s < 1:
        parser.error(f"--clip_length_s is at least 1 second, not {options.clip_length_s:g}")
    try:
        tally = collect(options.video_dir, options.output_dir, options.clip_length_s)
    except (ValueError, OSError) as error:
        raise SystemExit(f"diffuse.collect.videos: {error}") from error
    print(tally.report(options.output_dir))


if __name__ == "__main__":
    main()
