"""Videos from audio."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from align.models.encoder import AudioPromptEncoder
from diffuse.animate import main
from diffuse.pipelines.animation import AudioFrames, save_video
from tests.conftest import RATE, tone


def test_audio_frames_are_centered_at_their_time() -> None:
    samples = np.linspace(0.1, 1.0, 8 * 100, dtype=np.float32)
    frames = AudioFrames.from_audio((100, samples), 100, fps=2.0, window_s=1.0)
    assert len(frames.segments) == 16 and {len(s) for s in frames.segments} == {100}
    centers = [float(np.median(s)) for s in frames.segments]
    assert centers == sorted(centers)
    np.testing.assert_allclose(centers[4], samples[int(4.5 / 16 * 800)], atol=0.01)
    long = AudioFrames.from_audio((100, samples), 100, fps=2.0, window_s=60.0)
    assert {len(s) for s in long.segments} == {800}
    assert (
        len(AudioFrames.from_audio((100, samples[:10]), 100, fps=2.0, window_s=1.0).segments) == 1
    )
    with pytest.raises(ValueError, match="must be positive, not 0"):
        AudioFrames.from_audio((100, samples), 100, fps=0, window_s=1.0)


def test_silent_frames_repeat_the_last_audible_frame() -> None:
    silent, loud = np.zeros(100, np.float32), np.full(100, 0.5, np.float32)
    samples = np.concatenate([silent, loud, silent, silent, loud])
    frames = AudioFrames.from_audio((100, samples), 100, fps=1.0, window_s=1.0)
    assert frames.has_audio() == [False, True, False, False, True]
    assert frames.source_frames() == [1, 1, 1, 1, 4]


def test_save_video_mp4_has_frames_and_audio(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 48), color) for color in ("red", "green", "blue", "white")]
    save_video(tmp_path / "video.mp4", frames, 4.0, tone(440, 1.0), RATE)
    with av.open(str(tmp_path / "video.mp4")) as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    with av.open(str(tmp_path / "video.mp4")) as video:
        audio = np.concatenate([frame.to_ndarray()[0] for frame in video.decode(audio=0)])
    assert len(shown) == 4 and shown[0].shape == (48, 64, 3)
    assert shown[0][..., 0].mean() > 200 > shown[2][..., 0].mean()
    assert 0.9 < len(audio) / RATE < 1.2 and np.abs(audio).max() > 0.2


def test_animate_command_frames_follow_the_audio(
    tiny_base: str, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "encoder")
    soundfile.write(tmp_path / "two.wav", np.concatenate([tone(200), tone(4000)]), RATE)
    command = [
        str(tmp_path / "two.wav"), "--base_model", tiny_base,
        "--encoder", str(tmp_path / "encoder"),
        "--num_inference_steps", "2", "--fps", "1", "--window_s", "0.5", "--device", "cpu",
    ]  # fmt: skip
    for name in ("one.gif", "two.gif"):
        main([*command, "--output_file", str(tmp_path / name)])
    assert (tmp_path / "one.gif").read_bytes() == (tmp_path / "two.gif").read_bytes()
    video = Image.open(tmp_path / "one.gif")
    shown = []
    for i in range(video.n_frames):
        video.seek(i)
        shown.append(np.asarray(video.convert("RGB")).astype(int))
    assert len(shown) >= 2 and (shown[0] != shown[-1]).any()
    for wrong, message in (("video.avi", "saved as .gif or .mp4, not 'video.avi'"),):
        with pytest.raises(SystemExit, match=message):
            main([*command, "--output_file", str(tmp_path / wrong)])
