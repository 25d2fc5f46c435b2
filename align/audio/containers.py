"""Sound tracks that libsndfile does not read whole: m4a, aac, webm, mp4, wma, by PyAV."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from align.audio.files import AudioError, to_float, warn_truncated

# What a file may be taken for. FFmpeg would open playlists too, and through them any other file
# or address that they name; a picture it would call a video.
CONTAINERS = "mov,matroska,asf,aac,mp3,ogg,flac,wav,caf,aiff,avi,flv,mpeg,mpegts,amr,ac3,ape,wv,tta"
ESTIMATED = {"aac", "mp3", "mpeg", "mpegts", "amr", "ac3"}  # their durations are FFmpeg's guess
DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d*)?)")  # a duration as Matroska's tags have it
TOLERANCE_S = 0.1  # more than a codec's delay, by which a stated duration may be off


def open_track(
    file: BinaryIO, name: str, stack: contextlib.ExitStack, *, damaged: bool = False
) -> tuple[int, Iterator[np.ndarray]]:
    """The first sound track of a container.

    Args:
        file: an encoded file, standing at its start.
        name: of the recording, for messages.
        stack: closes the container.
        damaged: whether the file is known not to be whole, so that the user is warned.

    Returns:
        The sample rate in Hz, and blocks (n, channels) float32.

    Raises:
        AudioError: it is no sound or video file, or has no sound track.
    """
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"{name} cannot be read by libsndfile: install PyAV (pip install av), "
            "or convert it to wav or flac."
        ) from error
    try:
        # Tags in an old encoding are no reason to refuse the sound.
        options = {"format_whitelist": CONTAINERS}
        container = av.open(file, "r", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name} is not a sound file that can be read, or is damaged at its start: give wav, "
            "flac, ogg, opus, mp3, aiff, m4a, aac, webm or mp4."
        ) from error
    stack.enter_context(container)
    if not container.streams.audio:
        raise AudioError(f"{name} has no sound track: give a recording with sound in it.")
    track = _Track(container, name, damaged)
    return track.sample_rate, track.blocks()


class _Track:
    """The first sound track; the rate is its first frame's: a header may say half, in HE-AAC."""

    def __init__(self, container: Any, name: str, damaged: bool) -> None:
        self._container, self._name, self._damaged = container, name, damaged
        self._frames = self._decode()
        self._first = next(self._frames, None)
        if self._first is None:
            raise AudioError(
                f"{name} has no samples that can be decoded: "
                "give a recording with sound in it, or convert it to wav or flac."
            )
        self.sample_rate = self._first.sample_rate

    def _decode(self) -> Iterator[Any]:
        import av

        packets = self._container.demux(self._container.streams.audio[0])
        while True:
            try:  # one by one: a bad packet costs itself, not the rest of the recording
                packet = next(packets, None)
                if packet is None:
                    return
                yield from packet.decode()
            except av.error.FFmpegError:
                self._damaged = True

    def blocks(self) -> Iterator[np.ndarray]:
        """Every frame as (n, channels) float32; warns at the end if the track was not whole."""
        count, frame = 0, self._first
        while frame is not None:
            if frame.sample_rate != self.sample_rate:
                raise AudioError(
                    f"{self._name} changes its sample rate from {self.sample_rate} to "
                    f"{frame.sample_rate} Hz midway: convert it to wav or flac."
                )
            samples, channels = frame.to_ndarray(), frame.layout.nb_channels
            block = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
            yield to_float(block)
            count += len(block)
            frame = next(self._frames, None)
        if self._damaged or count / self.sample_rate < self._declared_duration_s() - TOLERANCE_S:
            warn_truncated(self._name)

    def _declared_duration_s(self) -> float:
        """The seconds that the file states for this track, or 0."""
        streams, track = self._container.streams, self._container.streams.audio[0]
        formats = self._container.format.name.split(",")
        if not ESTIMATED.isdisjoint(formats):
            return 0.0
        if "matroska" in formats:
            if "DURATION" in track.metadata:
                return _tag_duration_s(track)
            if track.duration:  # it has no place for one: FFmpeg's guess again
                return 0.0
        if track.duration:
            return float(track.duration * track.time_base)
        # The container's own is that of its longest track.
        return (self._container.duration or 0) / 1e6 if len(streams) == 1 else 0.0


def _tag_duration_s(track: Any) -> float:
    """The seconds from a Matroska track's first sample to the end that its tag states, or 0."""
    declared = DURATION_TAG.fullmatch(track.metadata["DURATION"])
    if declared is None:
        return 0.0
    hours, minutes, seconds = map(float, declared.groups())
    # FFmpeg writes the time at which the track ends, which is its length if it starts at once.
    # Other programs write the length: then too little is asked for, and there is no false alarm.
    starts_s = float((track.start_time or 0) * track.time_base)
    return hours * 3600 + minutes * 60 + seconds - max(0.0, starts_s)
