"""Unusual arrays, lists, tensors and decoders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from align.audio.files import AudioError
from align.audio.waveform import read
from tests.align.audio.test_waveform import RATE, tone

WAVEFORM = torch.from_numpy(tone(RATE))
INT16 = (32_767 * tone(RATE)).astype(np.int16)


def error_message(audio: object, **options: int) -> str:
    with pytest.raises(AudioError) as caught:
        read(audio, RATE, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text and len(text) < 300
    return text


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_read_64bit_integers_raises(kind: type):
    wide = INT16.astype(kind)
    assert "give int16, int32 or floats" in error_message(wide, sampling_rate=RATE)
    assert "give int16, int32 or floats" in error_message((RATE, wide))
    assert np.abs(read((RATE, INT16), RATE)).max() == pytest.approx(0.5, abs=1e-3)


def test_read_list_accepts_floats_only():
    listed = {"array": INT16.tolist(), "sampling_rate": RATE}
    assert "give int16, int32 or floats" in error_message(listed)
    listed = {"array": tone(RATE).tolist(), "sampling_rate": RATE}
    assert np.array_equal(read(listed, RATE), tone(RATE))


def test_read_negated_tensor_view():
    twice = torch.complex(torch.zeros_like(WAVEFORM), -WAVEFORM).conj().imag
    assert twice.is_neg()
    assert np.array_equal(read(twice, RATE, sampling_rate=RATE), tone(RATE))


@pytest.mark.parametrize(
    "tensor",
    [
        WAVEFORM.to("meta"),
        WAVEFORM.to_sparse(),
        torch.complex(WAVEFORM, WAVEFORM).conj(),
        torch.nested.nested_tensor([WAVEFORM, WAVEFORM[:5]], layout=torch.jagged),
    ],
    ids=["meta", "sparse", "conj", "nested"],
)
def test_read_unsupported_tensor_raises(tensor: torch.Tensor):
    assert "real integers or floats" in error_message(tensor, sampling_rate=RATE)
    assert "real integers or floats" in error_message({"array": tensor, "sampling_rate": RATE})


def test_read_ragged_list_raises():
    assert "ragged" in error_message((RATE, [tone(RATE), tone(RATE)[:5]]))
    assert "not numeric" in error_message((RATE, [WAVEFORM.to("meta")] * 2))


@pytest.mark.parametrize("wrap", [torch.tensor, np.array, np.int32])
def test_read_accepts_zero_dimensional_rate(wrap):
    for audio in (
        {"array": tone(RATE), "sampling_rate": wrap(RATE)},
        (wrap(RATE), tone(RATE)),
    ):
        assert np.array_equal(read(audio, RATE), tone(RATE))
    assert np.array_equal(read(WAVEFORM, wrap(RATE), sampling_rate=wrap(RATE)), tone(RATE))


@pytest.mark.parametrize(
    "rate",
    [
        torch.tensor([RATE]),
        torch.tensor(True),
        torch.tensor(16_000.5),
        torch.tensor(RATE, device="meta"),
        np.array("16000"),
        "16000",
    ],
    ids=["axis", "bool", "fraction", "meta", "words", "text"],
)
def test_read_invalid_rate_raises(rate: object):
    found = error_message({"array": tone(RATE), "sampling_rate": rate})
    assert found.startswith("the sample rate of the array=")


@pytest.mark.parametrize(
    "several",
    [
        ("a.wav", "b.wav"),
        ("a.wav", "b.wav", "c.wav"),
        (Path("a.wav"), Path("b.wav")),
        (b"RIFF", b"RIFF"),
        ({"path": "a.wav"}, {"path": "b.wav"}),
        (WAVEFORM, WAVEFORM),
    ],
    ids=["paths", "three", "Paths", "bytes", "dicts", "tensors"],
)
def test_read_tuple_of_clips_raises(several: tuple):
    assert "a list for several clips" in error_message(several)


class AudioDecoder:
    """Interface of torchcodec's AudioDecoder."""

    def __init__(self, data: torch.Tensor, sample_rate: int) -> None:
        self._samples = SimpleNamespace(data=data, sample_rate=sample_rate)

    def get_all_samples(self) -> SimpleNamespace:
        if self._samples.sample_rate == 0:
            raise RuntimeError("Failed to decode:\nInvalid data found")
        return self._samples


def test_read_audio_decoder():
    sound = torch.from_numpy(tone(44_100))
    expected = read(sound, RATE, sampling_rate=44_100)
    assert np.array_equal(read(AudioDecoder(sound[None], 44_100), RATE), expected)
    apart = AudioDecoder(torch.stack([2 * sound, torch.zeros_like(sound)]), 44_100)
    assert np.array_equal(read(apart, RATE), expected)


def test_read_audio_decoder_errors():
    assert "cannot be decoded" in error_message(AudioDecoder(WAVEFORM[None], 0))
    given = error_message(AudioDecoder(WAVEFORM[None], RATE), sampling_rate=8_000)
    assert "leave sampling_rate out" in given
