"""Opening a recording: whatever it came as becomes a sample rate and blocks of samples."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import soundfile

from align.streams import MALFORMED, UNKNOWN_LENGTH, FromHere, guesses_length, is_cut_short

LOWEST_RATE, HIGHEST_RATE = 100, 1_000_000  # beyond these a rate is a slip: kHz, or a length
BLOCK = 1 << 16  # values decoded at a time, over all channels


class AudioError(ValueError):
    """A recording, or what was asked of it, cannot be used; the message says what to do."""


class AudioWarning(UserWarning):
    """A recording was used, but something in it was lost."""


class Source(NamedTuple):
    """An opened recording: its name for messages, its rate, its samples."""

    name: str
    sample_rate: int
    blocks: Iterator[np.ndarray]  # each (n, channels), float32, valid until the next is asked for


def is_number(value: Any) -> bool:
    """Whether it is a real number, a numpy scalar too; True and False are none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def checked_rate(rate: Any, name: str) -> int:
    """A sample rate in Hz as a whole number.

    Raises:
        AudioError: it is none.
    """
    if not is_number(rate) or rate != rate // 1:
        raise AudioError(f"{name}={rate!r} is not a sample rate: give a whole number of Hz.")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name}={rate} is not between {LOWEST_RATE} and {HIGHEST_RATE} Hz: "
            "give the samples a second."
        )
    return int(rate)


def open_source(recording: Any, sampling_rate: int | None, stack: contextlib.ExitStack) -> Source:
    """Opens anything that `align.audio.read` takes; the stack closes what was opened.

    Raises:
        AudioError: it cannot be read as sound.
    """
    called = recording.get("path") if isinstance(recording, Mapping) else None
    recording, own_rate = _unwrap(recording)
    if hasattr(recording, "detach") and hasattr(recording, "cpu"):
        recording = recording.detach().cpu()
        if recording.is_floating_point():
            recording = recording.float()  # numpy has no bfloat16
        recording = recording.numpy()
    if isinstance(recording, np.ndarray):
        rate = sampling_rate if own_rate is None else own_rate
        source = _open_array(recording, rate)
    else:
        source = _open_encoded(recording, stack, called)
    if sampling_rate not in (None, source.sample_rate):
        raise AudioError(
            f"sampling_rate={sampling_rate} was given, but {source.name} comes with "
            f"{source.sample_rate} Hz of its own: leave sampling_rate out."
        )
    return source


def _unwrap(recording: Any) -> tuple[Any, int | None]:
    """What is inside a mapping or a pair, and the rate that came with it."""
    if isinstance(recording, Mapping):
        if recording.get("array") is None:
            held = [recording[k] for k in ("bytes", "path") if recording.get(k) is not None]
            if not held:
                raise AudioError(
                    f"a mapping with the keys {sorted(map(str, recording))} holds no sound: "
                    "give 'array' and 'sampling_rate', or 'bytes', or 'path'."
                )
            return held[0], None
        recording = recording.get("sampling_rate"), recording["array"]
    if not isinstance(recording, tuple):
        return recording, None
    if len(recording) != 2 or np.ndim(recording[0]) > 0:
        raise AudioError("a tuple is read as (rate, array): give these two, the rate in Hz first.")
    rate, array = recording
    if not hasattr(array, "detach"):
        try:
            array = np.asarray(array)
        except ValueError as error:
            raise AudioError("the array has rows of unequal length: give (channels, N).") from error
    return array, None if rate is None else checked_rate(rate, "the rate that came with the array")


def _open_array(array: np.ndarray, rate: int | None) -> Source:
    name = f"the array of shape {array.shape} and type {array.dtype}"
    if rate is None:
        raise AudioError(f"{name} cannot tell its own rate: give it as sampling_rate, in Hz.")
    if array.dtype.kind not in "iuf":
        raise AudioError(f"{name} does not hold samples: give real integers or floats.")
    if array.ndim not in (1, 2):
        raise AudioError(f"{name} is not one recording: give (N,), (channels, N) or (N, channels).")
    if array.size == 0:
        raise AudioError(f"{name} is empty: give a recording with sound in it.")
    if array.ndim == 2 and array.shape[0] == array.shape[1] > 1:
        raise AudioError(
            f"{name} does not show which axis is the channels: give their mean, as (N,)."
        )
    if array.ndim == 1:
        array = array[:, None]
    elif array.shape[0] < array.shape[1]:
        array = array.T
    step = max(1, BLOCK // array.shape[1])
    starts = range(0, len(array), step)
    return Source(name, rate, (to_float(array[start : start + step]) for start in starts))


def to_float(samples: np.ndarray) -> np.ndarray:
    """Samples of any real type, any shape, as float32 with integers scaled to [-1, 1)."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
            return samples.astype(np.float32)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    zero = half if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - zero) / half).astype(np.float32)


def _open_encoded(recording: Any, stack: contextlib.ExitStack, called: Any) -> Source:
    name, file = _open_file(recording, stack)
    name = repr(str(called)) if called else name
    stream = FromHere(file)
    stack.callback(stream.rewind)
    if not stream.read(1):
        raise AudioError(f"{name} is empty (0 bytes): record or download it again.")
    malformed = False
    if not guesses_length(stream):
        stream.seek(0)
        try:
            sound = stack.enter_context(soundfile.SoundFile(stream))
            if 0 < sound.frames < UNKNOWN_LENGTH:
                rate = checked_rate(sound.samplerate, f"the sample rate of {name}")
                return Source(name, rate, _decode(sound, name))
        except soundfile.LibsndfileError as error:
            malformed = error.code == MALFORMED
    stream.seek(0)
    from align import tracks

    rate, blocks = tracks.open_track(stream, name, stack, damaged=malformed)  # type: ignore[arg-type]
    return Source(name, checked_rate(rate, f"the sample rate of {name}"), blocks)


def _decode(sound: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    buffer = np.empty((max(1, BLOCK // sound.channels), sound.channels), np.float32)
    count, damaged = 0, is_cut_short(sound.extra_info)
    while True:
        try:
            block = sound.read(out=buffer)
        except soundfile.LibsndfileError:
            # What came before the damage is in the buffer; only the position tells how much it is.
            block, damaged = buffer[: max(0, sound.tell() - count)], True
        yield block
        count += len(block)
        if len(block) < len(buffer):
            break
    if count and (damaged or count < sound.frames):
        cut_short(name)


def cut_short(name: str) -> None:
    """Warns that a recording ends before it should."""
    warnings.warn(
        f"{name} is cut short or damaged: what could be decoded was read, the rest is missing.",
        AudioWarning,
        stacklevel=3,
    )


def _open_file(recording: Any, stack: contextlib.ExitStack) -> tuple[str, Any]:
    if isinstance(recording, bytes | bytearray | memoryview):
        return f"the sound file given as {len(recording)} bytes", io.BytesIO(recording)
    if isinstance(recording, str | os.PathLike):
        name = repr(os.fspath(recording))
        try:
            return name, stack.enter_context(open(recording, "rb"))
        except FileNotFoundError:
            reason = "does not exist: check the path"
        except IsADirectoryError:
            reason = "is a folder: give the path of one sound file"
        except PermissionError:
            reason = "may not be read: ask for permission, or give a copy of your own"
        except (OSError, ValueError) as error:
            reason = f"cannot be opened ({error}): give the path of a sound file"
        raise AudioError(f"{name} {reason}.")
    if not hasattr(recording, "read"):
        raise AudioError(
            f"{type(recording).__name__} is not a recording: give a path, bytes, a binary file, "
            "an array with sampling_rate, a dict with 'array' or 'path', or (rate, array)."
        )
    if isinstance(recording.read(0), str):
        raise AudioError("the file was opened as text: open it with mode 'rb'.")
    name = f"the file {getattr(recording, 'name', type(recording).__name__)!r}"
    seekable = getattr(recording, "seekable", lambda: True)()
    return name, recording if seekable else io.BytesIO(recording.read())
