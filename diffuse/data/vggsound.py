"""Pairs from VGGSound: ten-second clips of local videos, and their middle frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from align.data.errors import DataError
from diffuse.collect.media import SAMPLE_RATE, VIDEO_EXTENSIONS, read_audio_segment, read_frame
from diffuse.collect.vggsound import CLIP_S, read_list

DUPLICATE = "duplicates"
MISSING_VIDEO = "clips without a local video"


def _extract_clips(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Add audio and frames to a batch of rows."""
    segments = list(zip(batch["video"], batch["start_s"], strict=True))
    audio = [
        {"array": read_audio_segment(Path(v), s, CLIP_S), "sampling_rate": SAMPLE_RATE}
        for v, s in segments
    ]
    frames = [read_frame(Path(v), s + CLIP_S / 2) for v, s in segments]
    return {**batch, "audio": audio, "image": frames}


def vggsound_clips(path: Path, folder: Path, split: str, skipped: dict[str, list[str]]) -> Dataset:
    """Return the clips of a split whose videos are in a folder.

    Args:
        path: VGGSound list: YouTube id, start in seconds, label, split.
        folder: Folder of videos named ID_SECONDS (the clip, six digits) or ID (the whole video).
        split: "train" or "test".
        skipped: Filled with the names of missing and duplicate clips, by reason.

    Raises:
        DataError: If the file is not a VGGSound list, or there is no video.
    """
    try:
        entries = [entry for entry in read_list(path) if entry.split == split]
    except (ValueError, OSError) as error:
        raise DataError(f"not a VGGSound list: {error}") from error
    local = {p.stem: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in VIDEO_EXTENSIONS}
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        video, start_s = local.get(entry.name), 0.0
        if video is None:
            video, start_s = local.get(entry.video_id), float(entry.start_s)
        if video is None:
            skipped.setdefault(MISSING_VIDEO, []).append(entry.name)
        elif entry.name in rows:
            skipped.setdefault(DUPLICATE, []).append(entry.name)
        else:
            row = {"video": str(video), "start_s": start_s, "caption": entry.label}
            rows[entry.name] = {**row, "label": entry.label}
    if not rows:
        raise DataError(
            f"none of the {len(entries)} clips of {path} ({split}) has a video in {folder}"
        )
    return Dataset.from_list(list(rows.values())).with_transform(_extract_clips)


def vggsound_rows(
    path: Path, video_dir: str | None, split: str, skipped: dict[str, list[str]]
) -> Dataset:
    """Return the clips of a VGGSound list with local videos, extracted on access.

    Args:
        path: VGGSound list.
        video_dir: Folder of videos.
        split: "train" or "test".
        skipped: Filled with the names of missing and duplicate clips, by reason.

    Raises:
        DataError: If the list or the folder of videos does not exist or is invalid.
    """
    if not path.is_file():
        raise DataError(f"there is no VGGSound list {path}: give its CSV file as --dataset")
    if video_dir is None or not Path(video_dir).expanduser().is_dir():
        raise DataError(f"{path} lists videos: give their folder as --video_dir, not {video_dir!r}")
    return vggsound_clips(path, Path(video_dir).expanduser(), split, skipped)
