"""Collectors that extract clips from local videos and audio files."""

from __future__ import annotations

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from diffuse.collect import audiocaps, vggsound, videos
from diffuse.collect.table import MetadataTable
from tests.conftest import tone


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def video(path: Path, seconds: int, frequency: float = 440.0, silent_after: float = 1e9) -> None:
    """Write a video that brightens by 30 grey levels per second, with a tone."""
    rate = 48_000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        track = container.add_stream("aac", rate=rate)
        track.layout = "mono"
        for k in range(seconds * 10):
            grey = np.full((64, 64, 3), 3 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode(None))
        samples = tone(frequency, seconds, rate)
        samples[int(min(silent_after, seconds) * rate) :] = 0
        for start in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(block, "fltp", "mono")
            frame.rate = rate
            container.mux(track.encode(frame))
        container.mux(track.encode(None))


def brightness(path: Path) -> float:
    return float(np.asarray(Image.open(path).convert("L")).mean())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    video(folder / "long.mp4", 7)
    video(folder / "abc_000030.mp4", 4, 880.0)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_videos_are_split_into_pairs(clips: Path, tmp_path: Path) -> None:
    stats = videos.collect(clips, tmp_path, 3.0)
    # 7 s: two clips and one of 1 s; 4 s: one clip and one of 1 s.
    assert stats.saved == len(rows_of(tmp_path)) == 5
    assert stats.skipped == {"without readable audio": 1}
    row = next(r for r in rows_of(tmp_path) if r["source"] == "long.mp4" and r["start_s"] == "3")
    assert brightness(tmp_path / row["image"]) == pytest.approx(3 * 45, abs=6)
    samples, rate = soundfile.read(tmp_path / row["file_name"])
    assert len(samples) == 3 * rate
    again = videos.collect(clips, tmp_path, 3.0)
    assert (again.saved, again.existing) == (0, 5)
    with pytest.raises(ValueError, match="has no videos"):
        videos.collect(tmp_path, tmp_path / "none", 3.0)


def test_videos_skips_silent_clips(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    video(tmp_path / "in/quiet.mp4", 6, silent_after=2.0)
    stats = videos.collect(tmp_path / "in", tmp_path / "out", 3.0)
    assert stats.saved == 1
    assert stats.skipped == {"silent": 1}


def test_vggsound_extracts_clips_from_local_videos(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vggsound, "CLIP_S", 2.0)
    listed = tmp_path / "vggsound.csv"
    listed.write_text(
        'abc,30,"dog barking",train\nlong,4,rain,test\ngone,1,rain,test\nbroken,0,rain,test\n'
    )
    entries = list(vggsound.read_list(listed))
    stats = vggsound.collect(entries, clips, tmp_path / "out")
    assert stats.saved == 2
    assert stats.skipped == {"without a local video": 1, "unreadable or silent": 1}
    rows = {row["label"]: row for row in rows_of(tmp_path / "out")}
    # A clip file starts at 0; the clip in a whole video starts at the time in the list.
    assert brightness(tmp_path / "out" / rows["dog barking"]["image"]) == pytest.approx(30, abs=6)
    assert brightness(tmp_path / "out" / rows["rain"]["image"]) == pytest.approx(150, abs=6)
    assert vggsound.collect(entries, clips, tmp_path / "out").existing == 2
    only = vggsound.collect(entries, clips, tmp_path / "only", ["rain"])
    assert only.saved == 1
    with pytest.raises(ValueError, match="no entry has the label cat"):
        vggsound.collect(entries, clips, tmp_path / "none", ["cat"])
    listed.write_text("a,b\n")
    with pytest.raises(ValueError, match="line 1"):
        list(vggsound.read_list(listed))


def test_audiocaps_captions_share_a_clip(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    rate = 16_000
    whole = np.concatenate([tone(200, 20, rate), tone(3000, 20, rate)])
    soundfile.write(tmp_path / "audio/whole.wav", whole, rate)
    soundfile.write(tmp_path / "audio/clip.wav", tone(500, 10, rate), rate)
    listed = tmp_path / "test.csv"
    listed.write_text(
        "audiocap_id,youtube_id,start_time,caption\n"
        "1,whole,25,a whistle\n2,whole,25,something whistles\n3,clip,50,a hum\n4,gone,0,nothing\n"
    )
    stats = audiocaps.collect(audiocaps.read_list(listed), tmp_path / "audio", tmp_path / "out")
    assert stats.saved == 3
    assert stats.skipped == {"without a local audio file": 1}
    rows = rows_of(tmp_path / "out")
    assert [row["label"] for row in rows] == ["whole_25", "whole_25", "clip_50"]
    assert len(list((tmp_path / "out/audio").iterdir())) == 2
    samples, found = soundfile.read(tmp_path / "out" / rows[0]["file_name"])
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * found / len(samples) == pytest.approx(3000, abs=5)
    listed.write_text("audiocap_id,caption\n1,a\n")
    with pytest.raises(ValueError, match="has no column start_time, youtube_id"):
        audiocaps.read_list(listed)


def test_table_with_other_columns_raises(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,caption\n")
    with pytest.raises(ValueError, match="must have the columns file_name, image"):
        MetadataTable(tmp_path, ("file_name", "image"), "file_name")
    assert (tmp_path / "metadata.csv").read_text() == "file_name,caption\n"


def test_table_with_a_partial_header_is_rewritten(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,ima")
    MetadataTable(tmp_path, ("file_name", "image"), "file_name").add(
        {"file_name": "a.flac", "image": "a.jpg"}, "a.flac"
    )
    assert rows_of(tmp_path) == [{"file_name": "a.flac", "image": "a.jpg"}]
