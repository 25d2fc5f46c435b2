"""Open any supported audio input as a sample rate and blocks of samples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import soundfile

from align.audio.files import (
    MALFORMED,
    UNKNOWN_LENGTH,
    AudioError,
    OffsetFile,
    is_truncated,
    lacks_length_header,
    open_file,
    to_float,
    warn_truncated,
)

LOWEST_RATE, HIGHEST_RATE = 100, 1_000_000  # other values are usually kHz or a sample count
BLOCK = 1 << 16  # values decoded at once, over all channels


class AudioSource(NamedTuple):
    """Opened audio.

    Attributes:
        name: Name of the audio in messages.
        sample_rate: Sample rate in Hz.
        blocks: Iterator of float32 blocks of shape (n, channels); each is valid until the next.
    """

    name: str
    sample_rate: int
    blocks: Iterator[np.ndarray]


def is_number(value: Any) -> bool:
    """Return whether a value is a real number or NumPy scalar; booleans are not numbers."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def validate_sample_rate(rate: Any, name: str) -> int:
    """Return a sample rate in Hz as an integer.

    Args:
        rate: A whole number, or an array or tensor with zero dimensions that holds one.
        name: Name of the argument in messages.

    Raises:
        AudioError: If it is not a sample rate.
    """
    rate = _item(rate)
    if not is_number(rate) or rate != rate // 1:
        raise AudioError(f"{name}={rate!r} is not a sample rate: give a whole number of Hz.")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name}={rate} is not between {LOWEST_RATE} and {HIGHEST_RATE} Hz: "
            "give the number of samples per second."
        )
    return int(rate)


def _item(value: Any) -> Any:
    """Return the value of a zero-dimensional array or tensor; anything else unchanged."""
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item"):
        return value
    with contextlib.suppress(RuntimeError):  # meta tensors have no value
        return value.item()
    return value


def open_source(audio: Any, sampling_rate: int | None, stack: contextlib.ExitStack) -> AudioSource:
    """Open any input of `align.audio.read`.

    Args:
        audio: Audio in any form that `align.audio.read` accepts.
        sampling_rate: Sample rate in Hz of a bare array or tensor.
        stack: Exit stack that closes opened files.

    Raises:
        AudioError: If the input cannot be read as audio.
    """
    given_path = audio.get("path") if isinstance(audio, Mapping) else None
    audio, own_rate = _unwrap(audio)
    if hasattr(audio, "detach") and hasattr(audio, "cpu"):
        audio = _tensor_array(audio)
    if isinstance(audio, np.ndarray):
        rate = sampling_rate if own_rate is None else own_rate
        source = _open_array(audio, rate)
    else:
        source = _open_encoded(audio, stack, given_path)
    if sampling_rate not in (None, source.sample_rate):
        raise AudioError(
            f"sampling_rate={sampling_rate} was given, but {source.name} has its own sample rate "
            f"of {source.sample_rate} Hz: leave sampling_rate out."
        )
    return source


def _tensor_array(tensor: Any) -> np.ndarray:
    """Convert a torch tensor to an array, including lazily negated or conjugated views."""
    try:
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float()  # numpy has no bfloat16
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
    except (RuntimeError, TypeError) as error:
        raise AudioError(
            f"the tensor of type {tensor.dtype}, layout {tensor.layout} and device {tensor.device} "
            "cannot be read as an array: give a dense one with real integers or floats."
        ) from error


def _unwrap(audio: Any) -> tuple[Any, int | None]:
    """Unwrap a mapping, (rate, array) pair or decoder into its content and sample rate."""
    if hasattr(audio, "get_all_samples"):
        audio = _decode_samples(audio)
    elif isinstance(audio, Mapping):
        if audio.get("array") is None:
            found = [audio[k] for k in ("bytes", "path") if audio.get(k) is not None]
            if not found:
                raise AudioError(
                    f"a mapping with the keys {sorted(map(str, audio))} contains no audio: "
                    "give 'array' and 'sampling_rate', or 'bytes', or 'path'."
                )
            return found[0], None
        audio = audio.get("sampling_rate"), audio["array"]
    elif isinstance(audio, tuple) and not _is_pair(audio):
        raise AudioError(
            "a tuple is read as (rate, array), with the rate in Hz first: "
            "give these two, or a list for several clips."
        )
    if not isinstance(audio, tuple):
        return audio, None
    rate, array = audio
    if not hasattr(array, "detach"):
        try:
            array = np.asarray(array)
        except (RuntimeError, TypeError, ValueError) as error:
            raise AudioError(
                "the array is ragged or not numeric: give shape (channels, N)."
            ) from error
    return array, None if rate is None else validate_sample_rate(
        rate, "the sample rate of the array"
    )


def _is_pair(given: tuple[Any, ...]) -> bool:
    return len(given) == 2 and isinstance(_item(given[0]), int | float | np.number | None)


def _decode_samples(decoder: Any) -> tuple[Any, Any]:
    """Return the sample rate and samples of a torchcodec AudioDecoder."""
    try:
        samples = decoder.get_all_samples()
    except (RuntimeError, ValueError) as error:
        raise AudioError(
            f"the audio of the {type(decoder).__name__} cannot be decoded: "
            "give the path or the bytes of its file."
        ) from error
    return samples.sample_rate, samples.data


def _open_array(array: np.ndarray, rate: int | None) -> AudioSource:
    name = f"the array of shape {array.shape} and type {array.dtype}"
    if rate is None:
        raise AudioError(f"{name} has no sample rate: pass sampling_rate in Hz.")
    if array.dtype.kind not in "iuf":
        raise AudioError(f"{name} does not contain samples: give real integers or floats.")
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:  # NumPy's type for lists of integers
        raise AudioError(f"{name} has an unknown full scale: give int16, int32 or floats.")
    if array.ndim not in (1, 2):
        raise AudioError(
            f"{name} is not one clip: give shape (N,), (channels, N) or (N, channels)."
        )
    if array.size == 0:
        raise AudioError(f"{name} is empty: give at least one sample.")
    if array.ndim == 2 and array.shape[0] == array.shape[1] > 1:
        raise AudioError(
            f"{name} has an ambiguous channel axis: give the mean of the channels, of shape (N,)."
        )
    if array.ndim == 1:
        array = array[:, None]
    elif array.shape[0] < array.shape[1]:
        array = array.T
    step = max(1, BLOCK // array.shape[1])
    starts = range(0, len(array), step)
    return AudioSource(name, rate, (to_float(array[start : start + step]) for start in starts))


def _open_encoded(audio: Any, stack: contextlib.ExitStack, given_path: Any) -> AudioSource:
    name, file = open_file(audio, stack)
    name = repr(str(given_path)) if given_path else name
    stream = OffsetFile(file)
    stack.callback(stream.rewind)
    if not stream.read(1):
        raise AudioError(f"{name} is empty (0 bytes): record or download it again.")
    malformed = False
    if not lacks_length_header(stream):
        stream.seek(0)
        try:
            sound_file = stack.enter_context(soundfile.SoundFile(stream))
            if 0 < sound_file.frames < UNKNOWN_LENGTH:
                rate = validate_sample_rate(sound_file.samplerate, f"the sample rate of {name}")
                return AudioSource(name, rate, _decode(sound_file, name))
        except soundfile.LibsndfileError as error:
            malformed = error.code == MALFORMED
    stream.seek(0)
    from align.audio import containers as tracks

    rate, blocks = tracks.open_track(stream, name, stack, damaged=malformed)  # type: ignore[arg-type]
    return AudioSource(name, validate_sample_rate(rate, f"the sample rate of {name}"), blocks)


def _decode(sound_file: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    buffer = np.empty((max(1, BLOCK // sound_file.channels), sound_file.channels), np.float32)
    count, damaged = 0, is_truncated(sound_file.extra_info)
    while True:
        try:
            block = sound_file.read(out=buffer)
        except soundfile.LibsndfileError:
            # The samples before the damage are in the buffer; the position gives their number.
            block, damaged = buffer[: max(0, sound_file.tell() - count)], True
        yield block
        count += len(block)
        if len(block) < len(buffer):
            break
    # Checked again: libsndfile logs gaps in a long file only while it reads them.
    if count and (damaged or count < sound_file.frames or is_truncated(sound_file.extra_info)):
        warn_truncated(name)
