"""Open audio files, find where their data starts, and detect truncation."""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from typing import Any

import numpy as np

MALFORMED = 3  # libsndfile's SF_ERR_MALFORMED_FILE: known format, incomplete content
UNKNOWN_LENGTH = 1 << 62  # frame count of a streamed FLAC; libsndfile then fails at its end
OPEN_ENDED = 0x7FFFF000  # size in a streamed WAV, meaning "to the end"
# libsndfile corrects sizes larger than the file and reports it only in its log.
SIZE_MISMATCH = re.compile(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", re.M)
DAMAGE_MESSAGES = (
    "Calculated frame count",  # RF64: differs from its header
    "Junk after the last page",  # Ogg: truncated page
    "Corrupted bitstream?!",  # Ogg: stray bytes between two pages
    "libogg reports a hole",  # Ogg: missing page
)


class AudioError(ValueError):
    """Unusable audio, or an invalid argument for it; the message states the remedy."""


class AudioWarning(UserWarning):
    """Audio that was used although part of it could not be decoded."""


class OffsetFile(io.RawIOBase):
    """View of a binary file from its current position, for decoders that seek to zero.

    The file itself is never closed.

    Args:
        file: Seekable binary file object.
    """

    def __init__(self, file: Any) -> None:
        self._file, self._start = file, file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        offset += self._start if whence == os.SEEK_SET else 0
        return int(self._file.seek(offset, whence)) - self._start

    def tell(self) -> int:
        return int(self._file.tell()) - self._start

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def rewind(self) -> None:
        """Restore the original position so that the file can be read again."""
        # The file may have been closed in the meantime.
        with contextlib.suppress(OSError, ValueError):
            self._file.seek(self._start)


def open_file(audio: Any, stack: contextlib.ExitStack) -> tuple[str, Any]:
    """Open audio as a binary file.

    Args:
        audio: Path, bytes, or binary file object.
        stack: Exit stack that closes a file opened from a path.

    Returns:
        The name of the audio in messages, and a binary file.

    Raises:
        AudioError: If the file does not exist or cannot be opened, or the type is unsupported.
    """
    if isinstance(audio, bytes | bytearray | memoryview):
        return f"the audio file given as {len(audio)} bytes", io.BytesIO(audio)
    if isinstance(audio, str | os.PathLike):
        name = repr(os.fspath(audio))
        try:
            return name, stack.enter_context(open(audio, "rb"))
        except FileNotFoundError:
            reason = "does not exist: check the path"
        except IsADirectoryError:
            reason = "is a folder: give the path of one audio file"
        except PermissionError:
            reason = "is not readable (permission denied): change its permissions or give a copy"
        except (OSError, ValueError) as error:
            reason = f"cannot be opened ({error}): give the path of an audio file"
        raise AudioError(f"{name} {reason}.")
    if not hasattr(audio, "read"):
        raise AudioError(
            f"{type(audio).__name__} is not audio: give a path, bytes, a binary file, "
            "an array with sampling_rate, a dict with 'array' or 'path', or (rate, array)."
        )
    if isinstance(audio.read(0), str):
        raise AudioError("the file was opened as text: open it with mode 'rb'.")
    name = f"the file {getattr(audio, 'name', type(audio).__name__)!r}"
    seekable = getattr(audio, "seekable", lambda: True)()
    return name, audio if seekable else io.BytesIO(audio.read())


def lacks_length_header(stream: OffsetFile) -> bool:
    """Return whether this is an MP3 or MP2 file without a length header (no MP2 has one).

    libsndfile then estimates the length from the first frame, and either drops up to half of the
    audio or reports more than there is.
    """
    stream.seek(0)
    head = stream.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:  # ID3 tag; its size is four groups of seven bits
        size = zip(head[6:], (21, 14, 7, 0), strict=True)
        start = 10 + sum((byte & 127) << shift for byte, shift in size)
    stream.seek(start)
    frame = stream.read(200)
    # The sync bits, and those of layer III (MP3) or II (MP2).
    is_mpeg = len(frame) > 4 and frame[0] == 0xFF and frame[1] & 0xE6 in (0xE2, 0xE4)
    return is_mpeg and not any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def is_truncated(log: str) -> bool:
    """Return whether libsndfile's log reports damage, or less data than the header declares."""
    sizes = [(int(declared), int(actual)) for declared, actual in SIZE_MISMATCH.findall(log)]
    return any(message in log for message in DAMAGE_MESSAGES) or any(
        actual < declared < OPEN_ENDED for declared, actual in sizes
    )


def warn_truncated(name: str) -> None:
    """Warn that audio is truncated or damaged."""
    warnings.warn(
        f"{name} is truncated or damaged: the decodable part was read, the rest is missing.",
        AudioWarning,
        stacklevel=3,
    )


def to_float(samples: np.ndarray) -> np.ndarray:
    """Convert samples of any real type and shape to float32; integers are scaled to [-1, 1)."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # overflow becomes infinite, which is rejected later
            return samples.astype(np.float32)
    full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    zero = full_scale if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - zero) / full_scale).astype(np.float32)
