"""Collect audio-image pairs from a folder of videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.audio.files import AudioError
from align.audio.waveform import Window, windows
from align.cli import CommandParser, argument_group
from diffuse.collect.media import (
    SAMPLE_RATE,
    VIDEO_EXTENSIONS,
    is_silent,
    read_frame,
    save_audio,
    save_frame,
)
from diffuse.collect.table import CollectionStats, MetadataTable, add_output_dir

COLUMNS = ("file_name", "image", "source", "start_s")
MIN_CLIP_S = 1.0  # shorter last clips of a video are dropped


COMMAND = "python -m diffuse.collect.videos"
EXAMPLES = (f"{COMMAND} VIDEO_DIR --clip_length_s 5 --output_dir pairs",)


def collect(video_dir: Path, output_dir: Path, clip_length_s: float) -> CollectionStats:
    """Split every video into clips, each with its audio and its middle frame.

    Args:
        video_dir: Folder of videos, searched recursively.
        output_dir: Output directory of audio/, images/ and metadata.csv.
        clip_length_s: Length of a clip in seconds.

    Raises:
        ValueError: If the folder has no videos.
    """
    found = sorted(
        p for p in video_dir.rglob("*") if p.suffix.lower() in VIDEO_EXTENSIONS and p.is_file()
    )
    if not found:
        raise ValueError(f"{video_dir} has no videos ({', '.join(VIDEO_EXTENSIONS)})")
    table, stats = MetadataTable(output_dir, COLUMNS, "file_name"), CollectionStats()
    for k, video in enumerate(found):
        print(f"{k + 1}/{len(found)} {video.name}", flush=True)
        try:
            for window in windows(video, SAMPLE_RATE, clip_length_s):
                if len(window.samples) >= MIN_CLIP_S * SAMPLE_RATE:
                    _add(window, video, video_dir, clip_length_s, table, stats)
        except AudioError as error:
            stats.skip(video.name, "without readable audio", str(error))
    return stats


def _add(
    window: Window,
    video: Path,
    video_dir: Path,
    clip_length_s: float,
    table: MetadataTable,
    stats: CollectionStats,
) -> None:
    relative = video.relative_to(video_dir)
    # The name keeps the extension: a.mp4 and a.mov are different videos.
    stem = "-".join(relative.parts).replace(".", "_") + f"-{round(window.start_s):06d}"
    audio, image = f"audio/{stem}.flac", f"images/{stem}.jpg"
    if audio in table.keys:
        stats.existing += 1
        return
    if is_silent(window.samples):
        stats.skip(f"{relative} at {window.start_s:g} s", "silent")
        return
    try:
        frame = read_frame(video, window.start_s + clip_length_s / 2)
    except ValueError as error:
        stats.skip(f"{relative} at {window.start_s:g} s", "without a frame", str(error))
        return
    save_audio(window.samples, table.folder / audio)
    save_frame(frame, table.folder / image)
    row = {"file_name": audio, "image": image, "source": str(relative)}
    table.add({**row, "start_s": f"{window.start_s:g}"}, audio)
    stats.saved += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    data = argument_group(parser, "data")
    data.add_argument("video_dir", type=Path, help="Folder of videos, searched recursively.")
    data.add_argument(
        "--clip_length_s", type=float, default=10.0, help="Length of each clip in seconds."
    )
    add_output_dir(parser)
    options = parser.parse_args(arguments)
    if options.clip_length_s < 1:
        parser.error(f"--clip_length_s must be at least 1, not {options.clip_length_s:g}")
    try:
        stats = collect(options.video_dir, options.output_dir, options.clip_length_s)
    except (ValueError, OSError) as error:
        raise SystemExit(f"diffuse.collect.videos: {error}") from error
    print(stats.report(options.output_dir))


if __name__ == "__main__":
    main()
