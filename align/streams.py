"""The bytes of a sound file before decoding: where they start, and whether they are whole."""

import contextlib
import io
import os
import re
from typing import Any

MALFORMED = 3  # libsndfile's SF_ERR_MALFORMED_FILE: the format is known, the content is not whole
UNKNOWN_LENGTH = 1 << 62  # a FLAC that was streamed says so; libsndfile then stumbles at its end
OPEN_ENDED = 0x7FFFF000  # a WAV that was streamed states a size that only means "to the end"
# libsndfile corrects sizes that are larger than the file, and only its log tells.
CORRECTED = re.compile(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", re.M)
COMPLAINTS = (
    "Calculated frame count",  # rf64: not what its header says
    "Junk after the last page",  # ogg: a page that breaks off
)


class FromHere(io.RawIOBase):
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


def guesses_length(stream: FromHere) -> bool:
    """Whether this is an MP3 that does not state its length.

    libsndfile guesses it then from the first frame, and drops what comes after: up to half.
    """
    stream.seek(0)
    head = stream.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:  # a tag first, its size in four times seven bits
        size = zip(head[6:], (21, 14, 7, 0), strict=True)
        start = 10 + sum((byte & 127) << shift for byte, shift in size)
    stream.seek(start)
    frame = stream.read(200)
    is_mpeg = len(frame) > 4 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2  # sync, layer III
    return is_mpeg and not any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def is_cut_short(log: str) -> bool:
    """Whether libsndfile's log says that there is less than the header promised."""
    sizes = [(int(stated), int(actual)) for stated, actual in CORRECTED.findall(log)]
    return any(complaint in log for complaint in COMPLAINTS) or any(
        actual < stated < OPEN_ENDED for stated, actual in sizes
    )
