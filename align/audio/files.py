"""The bytes of a sound file before decoding: opened, where they start, whether they are whole."""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from typing import Any

import numpy as np

MALFORMED = 3  # libsndfile's SF_ERR_MALFORMED_FILE: the format is known, the content is not whole
UNKNOWN_LENGTH = 1 << 62  # a FLAC that was streamed says so; libsndfile then stumbles at its end
OPEN_ENDED = 0x7FFFF000  # a WAV that was streamed states a size that only means "to the end"
# libsndfile corrects sizes that are larger than the file, and only its log tells.
SIZE_MISMATCH = re.compile(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", re.M)
DAMAGE_MESSAGES = (
    "Calculated frame count",  # rf64: not what its header says
    "Junk after the last page",  # ogg: a page that breaks off
    "Corrupted bitstream?!",  # ogg: bytes between two pages that are no page
    "libogg reports a hole",  # ogg: the next page is not the one that should follow
)


class AudioError(ValueError):
    """A recording, or what was asked of it, cannot be used; the message says what to do."""


class AudioWarning(UserWarning):
    """A recording was used, but something in it was lost."""


class OffsetFile(io.RawIOBase):
    """A binary file seen from where it stands, for decoders that seek to zero; never closes it."""

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
        """Leave the file as it was found, so that it can be read again; it may be closed by now."""
        with contextlib.suppress(OSError, ValueError):
            self._file.seek(self._start)


def open_file(audio: Any, stack: contextlib.ExitStack) -> tuple[str, Any]:
    """A recording's name for messages and its bytes as a binary file; the stack closes a path's.

    Raises:
        AudioError: there is no such file, or it is none.
    """
    if isinstance(audio, bytes | bytearray | memoryview):
        return f"the sound file given as {len(audio)} bytes", io.BytesIO(audio)
    if isinstance(audio, str | os.PathLike):
        name = repr(os.fspath(audio))
        try:
            return name, stack.enter_context(open(audio, "rb"))
        except FileNotFoundError:
            reason = "does not exist: check the path"
        except IsADirectoryError:
            reason = "is a folder: give the path of one sound file"
        except PermissionError:
            reason = "may not be read: ask for permission, or give a copy of your own"
        except (OSError, ValueError) as error:
            reason = f"cannot be opened ({error}): give the path of a sound file"
        raise AudioError(f"{name} {reason}.")
    if not hasattr(audio, "read"):
        raise AudioError(
            f"{type(audio).__name__} is not a recording: give a path, bytes, a binary file, "
            "an array with sampling_rate, a dict with 'array' or 'path', or (rate, array)."
        )
    if isinstance(audio.read(0), str):
        raise AudioError("the file was opened as text: open it with mode 'rb'.")
    name = f"the file {getattr(audio, 'name', type(audio).__name__)!r}"
    seekable = getattr(audio, "seekable", lambda: True)()
    return name, audio if seekable else io.BytesIO(audio.read())


def lacks_length_header(stream: OffsetFile) -> bool:
    """Whether this is an MP3 or MP2 that does not state its length: no MP2 does.

    libsndfile guesses it then from the first frame: it drops what comes after, up to half, or
    promises more than there is.
    """
    stream.seek(0)
    head = stream.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:  # a tag first, its size in four times seven bits
        size = zip(head[6:], (21, 14, 7, 0), strict=True)
        start = 10 + sum((byte & 127) << shift for byte, shift in size)
    stream.seek(start)
    frame = stream.read(200)
    # The sync bits, and those of layer III (MP3) or II (MP2).
    is_mpeg = len(frame) > 4 and frame[0] == 0xFF and frame[1] & 0xE6 in (0xE2, 0xE4)
    return is_mpeg and not any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def is_truncated(log: str) -> bool:
    """Whether libsndfile's log tells of damage, or of less than the header promised."""
    sizes = [(int(declared), int(actual)) for declared, actual in SIZE_MISMATCH.findall(log)]
    return any(message in log for message in DAMAGE_MESSAGES) or any(
        actual < declared < OPEN_ENDED for declared, actual in sizes
    )


def warn_truncated(name: str) -> None:
    """Warns that a recording ends before it should."""
    warnings.warn(
        f"{name} is cut short or damaged: what could be decoded was read, the rest is missing.",
        AudioWarning,
        stacklevel=3,
    )


def to_float(samples: np.ndarray) -> np.ndarray:
    """Samples of any real type, any shape, as float32 with integers scaled to [-1, 1)."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
            return samples.astype(np.float32)
    full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    zero = full_scale if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - zero) / full_scale).astype(np.float32)
