"""Arrays, lists, tensors and decoders that are not quite what was expected."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from align.audio.files import AudioError
from align.audio.waveform import read
from tests.align.audio.test_waveform import RATE, tone

SOUND = torch.from_numpy(tone(RATE))
WHOLE = (32_767 * tone(RATE)).astype(np.int16)


def refusal(recording: object, **options: int) -> str:
    with pytest.raises(AudioError) as caught:
        read(recording, RATE, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text and len(text) < 300
    return text


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_integers_that_do_not_tell_their_scale_are_refused(kind: type):
    wide = WHOLE.astype(kind)
    assert "give int16, int32 or floats" in refusal(wide, sampling_rate=RATE)
    assert "give int16, int32 or floats" in refusal((RATE, wide))
    assert np.abs(read((RATE, WHOLE), RATE)).max() == pytest.approx(0.5, abs=1e-3)


def test_a_list_of_integers_is_refused_and_one_of_floats_is_read():
    listed = {"array": WHOLE.tolist(), "sampling_rate": RATE}
    assert "give int16, int32 or floats" in refusal(listed)
    listed = {"array": tone(RATE).tolist(), "sampling_rate": RATE}
    assert np.array_equal(read(listed, RATE), tone(RATE))


def test_a_negated_view_of_a_tensor_is_read():
    twice = torch.complex(torch.zeros_like(SOUND), -SOUND).conj().imag
    assert twice.is_neg()
    assert np.array_equal(read(twice, RATE, sampling_rate=RATE), tone(RATE))


@pytest.mark.parametrize(
    "tensor",
    [
        SOUND.to("meta"),
        SOUND.to_sparse(),
        torch.complex(SOUND, SOUND).conj(),
        torch.nested.nested_tensor([SOUND, SOUND[:5]], layout=torch.jagged),
    ],
    ids=["meta", "sparse", "conj", "nested"],
)
def test_a_tensor_without_plain_samples_is_refused(tensor: torch.Tensor):
    assert "real integers or floats" in refusal(tensor, sampling_rate=RATE)
    assert "real integers or floats" in refusal({"array": tensor, "sampling_rate": RATE})


def test_a_list_of_what_is_no_array_is_refused():
    assert "unequal length" in refusal((RATE, [tone(RATE), tone(RATE)[:5]]))
    assert "numbers" in refusal((RATE, [SOUND.to("meta")] * 2))


@pytest.mark.parametrize("wrap", [torch.tensor, np.array, np.int32])
def test_a_rate_may_come_in_an_array_without_axes(wrap):
    for recording in (
        {"array": tone(RATE), "sampling_rate": wrap(RATE)},
        (wrap(RATE), tone(RATE)),
    ):
        assert np.array_equal(read(recording, RATE), tone(RATE))
    assert np.array_equal(read(SOUND, wrap(RATE), sampling_rate=wrap(RATE)), tone(RATE))


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
def test_what_is_no_rate_stays_refused(rate: object):
    found = refusal({"array": tone(RATE), "sampling_rate": rate})
    assert found.startswith("the rate that came with the array=")


@pytest.mark.parametrize(
    "several",
    [
        ("a.wav", "b.wav"),
        ("a.wav", "b.wav", "c.wav"),
        (Path("a.wav"), Path("b.wav")),
        (b"RIFF", b"RIFF"),
        ({"path": "a.wav"}, {"path": "b.wav"}),
        (SOUND, SOUND),
    ],
    ids=["paths", "three", "Paths", "bytes", "dicts", "tensors"],
)
def test_a_tuple_of_recordings_is_told_to_be_a_list(several: tuple):
    assert "a list of recordings" in refusal(several)


class AudioDecoder:
    """What torchcodec's class of this name shows of itself."""

    def __init__(self, data: torch.Tensor, sample_rate: int) -> None:
        self._samples = SimpleNamespace(data=data, sample_rate=sample_rate)

    def get_all_samples(self) -> SimpleNamespace:
        if self._samples.sample_rate == 0:
            raise RuntimeError("Failed to decode:\nInvalid data found")
        return self._samples


def test_an_audio_decoder_is_read():
    sound = torch.from_numpy(tone(44_100))
    expected = read(sound, RATE, sampling_rate=44_100)
    assert np.array_equal(read(AudioDecoder(sound[None], 44_100), RATE), expected)
    apart = AudioDecoder(torch.stack([2 * sound, torch.zeros_like(sound)]), 44_100)
    assert np.array_equal(read(apart, RATE), expected)


def test_an_audio_decoder_that_fails_or_is_given_a_rate_is_refused():
    assert "cannot be decoded" in refusal(AudioDecoder(SOUND[None], 0))
    given = refusal(AudioDecoder(SOUND[None], RATE), sampling_rate=8_000)
    assert "leave sampling_rate out" in given
