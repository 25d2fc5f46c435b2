"""The synthetic sounds: their format, and properties of each class."""

import numpy as np
import pytest

import soundprompt.mini.sounds as sounds
from soundprompt.mini.sounds import DURATION_S, GENERATORS, SAMPLE_RATE, animals, recording, sound

LABELS = sorted(GENERATORS)
SEEDS = range(6)


def several(label, seeds=SEEDS):
    return [sound(label, np.random.default_rng(seed)) for seed in seeds]


def band_share(x, low, high):
    """Share of the energy between two frequencies in Hz."""
    power = np.abs(np.fft.rfft(x)) ** 2
    f = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)
    return power[(f >= low) & (f < high)].sum() / power.sum()


def frame_levels(x, frame=600):
    """RMS of frames of 25 ms."""
    return np.sqrt(np.mean(x[: len(x) // frame * frame].reshape(-1, frame) ** 2, axis=1))


def periodicity(x, low_hz, high_hz, rate):
    """Highest normalized autocorrelation of `x` (sampled at `rate`) at lags between two rates."""
    x = x - x.mean()
    spectrum = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(x)]
    correlation /= (correlation[0] + 1e-9) * (1 - np.arange(len(x)) / len(x))
    return correlation[int(rate / high_hz) : int(rate / low_hz) + 2].max()


def envelope(x, hop=48):
    """Envelope at 500 Hz of the part of the sound above 300 Hz."""
    spectrum = np.fft.rfft(x)
    spectrum[: int(300 * DURATION_S)] = 0
    return frame_levels(np.fft.irfft(spectrum), hop)


@pytest.mark.parametrize("label", LABELS)
def test_sound_is_finite_float32_with_peak_one(label):
    for duration_s in (0.5, DURATION_S):
        x = sound(label, np.random.default_rng(3), duration_s)
        assert x.shape == (round(duration_s * SAMPLE_RATE),)
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert np.abs(x).max() == pytest.approx(1.0)


@pytest.mark.parametrize("label", LABELS)
def test_recording_is_in_range_and_depends_on_seed(label):
    first, again, other = (recording(label, None, np.random.default_rng(s)) for s in (7, 7, 8))
    assert first.shape == (round(DURATION_S * SAMPLE_RATE),)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert 0.005 < np.abs(first).max() <= 1.0
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("make", [sound, lambda label, rng: recording("dog", label, rng)])
def test_unknown_label_raises_with_known_ones(make):
    with pytest.raises(ValueError, match=r"'cat'.*dog.*crackling fire"):
        make("cat", np.random.default_rng(0))


def test_background_is_audible_but_weaker():
    def pause_level(far, seed):
        x = recording("dog", far, np.random.default_rng(seed))
        return np.sort(frame_levels(x))[:40].mean() / np.sqrt(np.mean(x**2))

    # Rain at -8 to -14 dB fills the pauses, where a lone dog leaves the noise floor.
    alone = [pause_level(None, seed) for seed in range(12)]
    both = [pause_level("rain", seed) for seed in range(12)]
    assert all(a != b for a, b in zip(alone, both, strict=True))
    assert 0.1 < np.median(both) < 0.6
    assert np.median(both) > 3 * np.median(alone)


def test_background_is_loudest_while_foreground_pauses(monkeypatch):
    calls = {"_in_part": [], "_background": []}

    def recorder(name):
        original = getattr(sounds, name)

        def call(*args):
            calls[name].append((args, original(*args)))
            return calls[name][-1][1]

        return call

    for name in calls:
        monkeypatch.setattr(sounds, name, recorder(name))
    for seed in range(12):
        recording("rain", "dog", np.random.default_rng(seed))
    for (_, (near, pause)), ((_, far, *_), _) in zip(
        calls["_in_part"], calls["_background"], strict=True
    ):
        assert not near[slice(*pause)].any()
        assert pause[0] < np.argmax(np.abs(far)) < pause[1]
        assert np.abs(far).max() == pytest.approx(1.0)


@pytest.mark.parametrize("at_least", [1, 3])
def test_barks_minimum_number(at_least, monkeypatch):
    counts = []
    monkeypatch.setattr(animals, "_bark", lambda *_: counts.append(1) or np.zeros(1, np.float32))
    monkeypatch.setattr(animals, "_growl", lambda *_: np.zeros(1, np.float32))
    for seed in range(20):
        counts.append(0)
        track = np.zeros(60 * SAMPLE_RATE, np.float32)
        animals._barks(np.random.default_rng(seed), track, 300.0, None, None, at_least)
    runs = "".join(map(str, counts)).split("0")[1:]
    assert min(map(len, runs)) == at_least


def test_dog_always_barks(monkeypatch):
    events = []
    monkeypatch.setattr(
        animals,
        "_barks",
        lambda rng, track, *_, at_least=1: events.append(at_least) or track.__setitem__(0, 1.0),
    )
    for name in ("_growls", "_howls", "_whines"):
        monkeypatch.setattr(
            animals, name, lambda rng, track, *_: events.append("else") or track.__setitem__(0, 1.0)
        )
    for seed in range(40):
        events.clear()
        animals.dog(np.random.default_rng(seed), SAMPLE_RATE)
        assert events in ([1], ["else", 3])


def test_short_events_are_padded_more_often_than_textures():
    def padded(label):
        clips = [recording(label, None, np.random.default_rng(seed)) for seed in range(20)]
        return sum(not x[-2400:].any() for x in clips)

    assert padded("sneezing") >= 8
    assert padded("rain") <= 3


def test_clock_ticks_at_a_steady_rate_with_pauses():
    for x in several("clock tick"):
        levels = envelope(x)
        assert periodicity(levels, 0.45, 6.0, 500) > 0.4
        assert np.median(levels) < 0.1 * levels.max()


def test_helicopter_is_periodic_at_its_blade_rate():
    beats = [periodicity(envelope(x), 7, 32, 500) for x in several("helicopter")]
    hiss = [periodicity(envelope(x), 7, 32, 500) for x in several("rain")]
    assert np.median(beats) > 0.2
    assert np.median(beats) > 3 * np.median(hiss)


def test_chainsaw_has_a_pitch_and_rain_has_none():
    def pitch_strength(x):
        frames = x[: len(x) // 2400 * 2400].reshape(-1, 2400)
        return np.median([periodicity(frame, 35, 230, SAMPLE_RATE) for frame in frames])

    saws = [pitch_strength(x) for x in several("chainsaw")]
    rain = [pitch_strength(x) for x in several("rain")]
    assert np.median(saws) > 0.35
    assert np.median(saws) > 1.5 * np.median(rain)


def test_waves_vary_more_than_rain():
    def spread_db(x):
        levels = frame_levels(x, SAMPLE_RATE // 4)
        return np.std(20 * np.log10(levels + 1e-6))

    rain = [spread_db(x) for x in several("rain", range(20))]
    waves = [spread_db(x) for x in several("sea waves")]
    assert np.median(rain) < 1.5
    assert np.median(waves) > 2 * np.median(rain)


def test_fire_has_high_crest_factor_and_no_steady_rate():
    fires = several("crackling fire")
    crest = [np.abs(x).max() / np.sqrt(np.mean(x**2)) for x in fires]
    assert np.median(crest) > 10
    beats = [periodicity(envelope(x), 1, 6, 500) for x in fires]
    ticks = [periodicity(envelope(x), 1, 6, 500) for x in several("clock tick")]
    assert np.median(beats) < 0.5 * np.median(ticks)


@pytest.mark.parametrize(
    ("label", "low_hz", "high_hz"), [("rooster", 400, 1300), ("crying baby", 250, 800)]
)
def test_voices_are_harmonic(label, low_hz, high_hz):
    strengths = []
    for x in several(label):
        levels = frame_levels(x, 1200)
        loudest = np.argsort(levels)[-8:]
        frames = x[: len(x) // 1200 * 1200].reshape(-1, 1200)[loudest]
        strengths.append(
            np.median([periodicity(frame, low_hz, high_hz, SAMPLE_RATE) for frame in frames])
        )
    assert np.median(strengths) > 0.6


def test_events_leave_pauses():
    for label in ("dog", "sneezing", "rooster"):
        silent = [np.mean(frame_levels(x) < 0.005) for x in several(label)]
        assert np.median(silent) > 0.2, label


def test_sneeze_is_brighter_than_helicopter():
    sneezes = np.median([band_share(x, 2000, 12_000) for x in several("sneezing")])
    rotors = np.median([band_share(x, 2000, 12_000) for x in several("helicopter")])
    assert sneezes > 0.2
    assert rotors < 0.5 * sneezes


def test_dogs_span_two_octaves_of_brightness():
    def centroid(x):
        power = np.abs(np.fft.rfft(x)) ** 2
        return (power * np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)).sum() / power.sum()

    centroids = [centroid(sound("dog", np.random.default_rng(seed))) for seed in range(20)]
    assert max(centroids) > 4 * min(centroids)


def test_light_rain_has_drops_above_its_hiss():
    def impulsiveness(x):
        # Fourth moment over squared second moment: 3 for Gaussian noise.
        bright = np.diff(x.astype(np.float64))
        return np.mean(bright**4) / np.mean(bright**2) ** 2

    rains = [impulsiveness(sound("rain", np.random.default_rng(seed))) for seed in range(12)]
    assert max(rains) > 8
    assert min(rains) < 4


@pytest.mark.parametrize("label", ["chainsaw", "helicopter", "rooster", "crying baby"])
def test_pitched_sources_have_many_partials(label):
    for x in several(label):
        power = np.sort(np.abs(np.fft.rfft(x)) ** 2)[::-1]
        assert power[:10].sum() < 0.5 * power.sum()
        assert band_share(x, 50, 12_000) > 0.02
