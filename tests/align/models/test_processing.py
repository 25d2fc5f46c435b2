"""Audio to features: windows, padding, masks and spectrograms."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from align.audio.files import AudioError, AudioWarning
from align.models.backbones.clap import ClapBackbone
from align.models.backbones.loading import load_backbone
from align.models.backbones.w2v_bert import W2vBertBackbone
from align.models.processing import AudioProcessor, pad
from diffuse.evaluation.generation import spectrograms_of
from tests.conftest import RATE, tone

RATE_W2V = 16_000


@pytest.fixture(scope="module")
def clap(tiny_clap: str) -> tuple[ClapBackbone, object]:
    backbone, extractor = load_backbone(tiny_clap)
    return backbone.eval(), extractor


def processor(extractor: object, max_windows: int = 120) -> AudioProcessor:
    return AudioProcessor(ClapBackbone.model_type, extractor, max_windows)


def test_clip_is_split_into_windows(clap: tuple[ClapBackbone, object]) -> None:
    backbone, extractor = clap
    assert processor(extractor).window_s == 2.0
    wave = tone(300, 5.0)
    found = processor(extractor).extract_features(wave, RATE)
    parts = [wave[: 2 * RATE], wave[2 * RATE : 4 * RATE], wave[4 * RATE :]]
    wanted = backbone.extract_features(extractor, parts)
    assert len(found) == len(wanted) == 3
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one, other)


def test_short_remainder_is_dropped(
    clap: tuple[ClapBackbone, object], recwarn: pytest.WarningsRecorder
) -> None:
    _, extractor = clap
    assert len(processor(extractor).extract_features(tone(300, 4.25), RATE)) == 3
    assert len(processor(extractor).extract_features(tone(300, 4.15), RATE)) == 2
    # A clip shorter than that is kept.
    assert len(processor(extractor).extract_features(tone(300, 0.15), RATE)) == 1
    assert [w for w in recwarn if issubclass(w.category, AudioWarning)] == []


def test_truncation_warns(clap: tuple[ClapBackbone, object]) -> None:
    _, extractor = clap
    wave = tone(300, 5.0)
    with pytest.warns(AudioWarning, match="first 4 s"):
        cut = processor(extractor, max_windows=2).extract_features(wave, RATE)
    wanted = processor(extractor).extract_features(wave[: 4 * RATE], RATE)
    assert len(cut) == len(wanted) == 2
    for one, other in zip(cut, wanted, strict=True):
        assert np.array_equal(one, other)


def test_silent_audio_raises(clap: tuple[ClapBackbone, object]) -> None:
    _, extractor = clap
    zeros = np.zeros(3 * RATE, np.float32)
    with pytest.raises(AudioError, match="silent"):
        processor(extractor).extract_features(zeros, RATE)
    # The same holds for a clip that is silent up to its last window.
    late = np.concatenate([zeros[: 2 * RATE], tone(300, 2.0)])
    with (
        pytest.warns(AudioWarning, match="first 2 s"),
        pytest.raises(AudioError, match="silent"),
    ):
        processor(extractor, max_windows=1).extract_features(late, RATE)
    assert len(processor(extractor).extract_features(late, RATE)) == 2


def test_pad_fills_with_masked_zeros() -> None:
    rows = [
        [np.full((3, 2), 1.0), np.full((2, 2), 2.0)],
        [np.full((4, 2), 3.0, np.float16)],
    ]
    batch = pad(rows)
    features, mask = batch["features"], batch["features_mask"]
    assert features.shape == (2, 2, 4, 2)
    assert features.dtype == torch.float32
    assert features[..., 0].tolist() == [[[1, 1, 1, 0], [2, 2, 0, 0]], [[3, 3, 3, 3], [0] * 4]]
    assert torch.equal(features[..., 1], features[..., 0])
    assert torch.equal(mask, features[..., 0] != 0)


def test_spectrogram_has_one_frame_per_row(
    tiny_w2v_bert: str, clap: tuple[ClapBackbone, object]
) -> None:
    sound = RATE_W2V, tone(300, 1.0, RATE_W2V)
    processor = AudioProcessor(W2vBertBackbone.model_type, load_backbone(tiny_w2v_bert)[1], 1)
    (stacked,) = processor.extract_features(sound)
    shown = processor.spectrogram(stacked)
    assert stacked.shape[1] == 2 * processor.num_mel_bins and shown.shape == (
        2 * len(stacked),
        processor.num_mel_bins,
    )
    assert np.array_equal(shown[6], stacked[3, : processor.num_mel_bins])
    assert np.array_equal(shown[7], stacked[3, processor.num_mel_bins :])
    pairs = SimpleNamespace(rows=[{"audio": sound}])
    arguments = SimpleNamespace(processor=processor), pairs, SimpleNamespace(kept=[0]), [0]
    assert np.array_equal(spectrograms_of(*arguments)[0], shown)  # in the UNet's sample sheet
    plain = AudioProcessor(ClapBackbone.model_type, clap[1], 1)
    (feature,) = plain.extract_features(sound)
    assert plain.spectrogram(feature).shape == feature.shape
