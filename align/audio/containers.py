"""Decode audio that libsndfile cannot read completely (m4a, aac, webm, mp4, wma) with PyAV."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from align.audio.files import AudioError, to_float, warn_truncated

# Allowed FFmpeg formats. Without this list FFmpeg would also open playlists, and through them any
# file or URL they name, and would treat an image as a video.
CONTAINERS = "mov,matroska,asf,aac,mp3,ogg,flac,wav,caf,aiff,avi,flv,mpeg,mpegts,amr,ac3,ape,wv,tta"
ESTIMATED = {"aac", "mp3", "mpeg", "mpegts", "amr", "ac3"}  # FFmpeg estimates their durations
DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d*)?)")  # duration in Matroska tags
TOLERANCE_S = 0.1  # a declared duration may be off by the codec delay


def open_track(
    file: BinaryIO, name: str, stack: contextlib.ExitStack, *, damaged: bool = False
) -> tuple[int, Iterator[np.ndarray]]:
    """Open the first audio track of a container.

    Args:
        file: Encoded file, positioned at its start.
        name: Name of the audio in messages.
        stack: Exit stack that closes the container.
        damaged: Whether the file is known to be incomplete, so that a warning is issued.

    Returns:
        The sample rate in Hz, and an iterator of float32 blocks of shape (n, channels).

    Raises:
        AudioError: If the file is not an audio or video file, or has no audio track.
    """
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"{name} cannot be read by libsndfile: install PyAV (pip install av), "
            "or convert it to wav or flac."
        ) from error
    try:
        # Tags in a legacy text encoding must not make the file unreadable.
        options = {"format_whitelist": CONTAINERS}
        container = av.open(file, "r", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name} is not a readable audio file, or its header is damaged: give wav, flac, ogg, "
            "opus, mp3, aiff, m4a, aac, webm or mp4."
        ) from error
    stack.enter_context(container)
    if not container.streams.audio:
        raise AudioError(f"{name} has no audio track: give a file with audio.")
    track = _Track(container, name, damaged)
    return track.sample_rate, track.blocks()


class _Track:
    """First audio track; the sample rate is read from its first frame.

    The header of an HE-AAC file may state half the rate.
    """

    def __init__(self, container: Any, name: str, damaged: bool) -> None:
        self._container, self._name, self._damaged = container, name, damaged
        self._frames = self._decode()
        self._first = next(self._frames, None)
        if self._first is None:
            raise AudioError(
                f"{name} has no samples that can be decoded: "
                "give a file with audio, or convert it to wav or flac."
            )
        self.sample_rate = self._first.sample_rate

    def _decode(self) -> Iterator[Any]:
        import av

        packets = self._container.demux(self._container.streams.audio[0])
        while True:
            try:  # packet by packet: a corrupt packet must not cost the rest of the track
                packet = next(packets, None)
                if packet is None:
                    return
                yield from packet.decode()
            except av.error.FFmpegError:
                self._damaged = True

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield every frame as float32 (n, channels); warn at the end if the track is truncated."""
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
        """Return the declared duration of this track in seconds, or 0 if unknown."""
        streams, track = self._container.streams, self._container.streams.audio[0]
        formats = self._container.format.name.split(",")
        if not ESTIMATED.isdisjoint(formats):
            return 0.0
        if "matroska" in formats:
            if "DURATION" in track.metadata:
                return _tag_duration_s(track)
            if track.duration:  # Matroska stores none, so this is FFmpeg's estimate
                return 0.0
        if track.duration:
            return float(track.duration * track.time_base)
        # The container's duration is that of its longest track.
        return (self._container.duration or 0) / 1e6 if len(streams) == 1 else 0.0


def _tag_duration_s(track: Any) -> float:
    """Return the seconds from a Matroska track's first sample to its tagged end, or 0."""
    declared = DURATION_TAG.fullmatch(track.metadata["DURATION"])
    if declared is None:
        return 0.0
    hours, minutes, seconds = map(float, declared.groups())
    # FFmpeg writes the end time of the track, which is its length if it starts at 0. Other
    # programs write the length; the result is then too small, which never causes a false warning.
    start_s = float((track.start_time or 0) * track.time_base)
    return hours * 3600 + minutes * 60 + seconds - max(0.0, start_s)
