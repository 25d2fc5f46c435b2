"""The procedural sounds: their contract, and what makes each class itself."""

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
    """Highest normalised autocorrelation of `x` at lags between two rates; `rate` is its own."""
    x = x - x.mean()
    spectrum = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(x)]
    correlation /= (correlation[0] + 1e-9) * (1 - np.arange(len(x)) / len(x))
    return correlation[int(rate / high_hz) : int(rate / low_hz) + 2].max()


def envelope(x, hop=48):
    """Level at 500 Hz of the sound above 300 Hz, where it is not the waveform itself."""
    spectrum = np.fft.rfft(x)
    spectrum[: int(300 * DURATION_S)] = 0
    return frame_levels(np.fft.irfft(spectrum), hop)


@pytest.mark.parametrize("label", LABELS)
def test_a_sound_is_finite_float32_of_the_length_asked_and_full_scale(label):
    for duration_s in (0.5, DURATION_S):
        x = sound(label, np.random.default_rng(3), duration_s)
        assert x.shape == (round(duration_s * SAMPLE_RATE),)
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert np.abs(x).max() == pytest.approx(1.0)


@pytest.mark.parametrize("label", LABELS)
def test_a_recording_stays_in_scale_and_follows_the_seed(label):
    first, again, other = (recording(label, None, np.random.default_rng(s)) for s in (7, 7, 8))
    assert first.shape == (round(DURATION_S * SAMPLE_RATE),)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert 0.005 < np.abs(first).max() <= 1.0
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("make", [sound, lambda label, rng: recording("dog", label, rng)])
def test_an_unknown_label_is_named_with_the_known_ones(make):
    with pytest.raises(ValueError, match=r"'cat'.*dog.*crackling fire"):
        make("cat", np.random.default_rng(0))


def test_a_far_source_is_heard_but_weaker_than_the_near_one():
    def pause_level(far, seed):
        x = recording("dog", far, np.random.default_rng(seed))
        return np.sort(frame_levels(x))[:40].mean() / np.sqrt(np.mean(x**2))

    # Rain at -8 to -14 dB fills the pauses, where a lone dog leaves the noise floor.
    alone = [pause_level(None, seed) for seed in range(12)]
    both = [pause_level("rain", seed) for seed in range(12)]
    assert all(a != b for a, b in zip(alone, both, strict=True))
    assert 0.1 < np.median(both) < 0.6
    assert np.median(both) > 3 * np.median(alone)


def test_what_is_behind_is_loudest_while_what_is_near_pauses(monkeypatch):
    heard = {"_in_part": [], "_behind": []}

    def noting(name):
        made = getattr(sounds, name)

        def call(*given):
            heard[name].append((given, made(*given)))
            return heard[name][-1][1]

        return call

    for name in heard:
        monkeypatch.setattr(sounds, name, noting(name))
    for seed in range(12):
        recording("rain", "dog", np.random.default_rng(seed))
    for (_, (near, pause)), ((_, far, *_), _) in zip(
        heard["_in_part"], heard["_behind"], strict=True
    ):
        assert not near[slice(*pause)].any()
        assert pause[0] < np.argmax(np.abs(far)) < pause[1]
        assert np.abs(far).max() == pytest.approx(1.0)


@pytest.mark.parametrize("at_least", [1, 3])
def test_barks_come_in_the_number_that_is_asked(at_least, monkeypatch):
    counts = []
    monkeypatch.setattr(animals, "_bark", lambda *_: counts.append(1) or np.zeros(1, np.float32))
    monkeypatch.setattr(animals, "_growl", lambda *_: np.zeros(1, np.float32))
    for seed in range(20):
        counts.append(0)
        track = np.zeros(60 * SAMPLE_RATE, np.float32)
        animals._barks(np.random.default_rng(seed), track, 300.0, None, None, at_least)
    runs = "".join(map(str, counts)).split("0")[1:]
    assert min(map(len, runs)) == at_least


def test_a_dog_barks_whatever_else_it_does(monkeypatch):
    heard = []
    monkeypatch.setattr(
        animals,
        "_barks",
        lambda rng, track, *_, at_least=1: heard.append(at_least) or track.__setitem__(0, 1.0),
    )
    for name in ("_growls", "_howls", "_whines"):
        monkeypatch.setattr(
            animals, name, lambda rng, track, *_: heard.append("else") or track.__setitem__(0, 1.0)
        )
    for seed in range(40):
        heard.clear()
        animals.dog(np.random.default_rng(seed), SAMPLE_RATE)
        assert heard in ([1], ["else", 3])


def test_short_events_are_often_padded_with_exact_zeros_and_textures_seldom():
    def padded(label):
        clips = [recording(label, None, np.random.default_rng(seed)) for seed in range(20)]
        return sum(not x[-2400:].any() for x in clips)

    assert padded("sneezing") >= 8
    assert padded("rain") <= 3


def test_a_clock_ticks_at_a_steady_rate_with_silence_between():
    for x in several("clock tick"):
        levels = envelope(x)
        assert periodicity(levels, 0.45, 6.0, 500) > 0.4
        assert np.median(levels) < 0.1 * levels.max()


def test_a_helicopter_beats_at_the_rate_of_its_blades():
    beats = [periodicity(envelope(x), 7, 32, 500) for x in several("helicopter")]
    hiss = [periodicity(envelope(x), 7, 32, 500) for x in several("rain")]
    assert np.median(beats) > 0.2
    assert np.median(beats) > 3 * np.median(hiss)


def test_a_chainsaw_has_the_pitch_of_an_engine_and_rain_has_none():
    def pitch_strength(x):
        frames = x[: len(x) // 2400 * 2400].reshape(-1, 2400)
        return np.median([periodicity(frame, 35, 230, SAMPLE_RATE) for frame in frames])

    saws = [pitch_strength(x) for x in several("chainsaw")]
    rain = [pitch_strength(x) for x in several("rain")]
    assert np.median(saws) > 0.35
    assert np.median(saws) > 1.5 * np.median(rain)


def test_rain_is_steady_and_waves_swell():
    def spread_db(x):
        levels = frame_levels(x, SAMPLE_RATE // 4)
        return np.std(20 * np.log10(levels + 1e-6))

    rain = [spread_db(x) for x in several("rain", range(20))]
    waves = [spread_db(x) for x in several("sea waves")]
    assert np.median(rain) < 1.5
    assert np.median(waves) > 2 * np.median(rain)


def test_a_fire_is_peaky_and_its_crackles_fall_at_no_steady_rate():
    fires = several("crackling fire")
    crest = [np.abs(x).max() / np.sqrt(np.mean(x**2)) for x in fires]
    assert np.median(crest) > 10
    beats = [periodicity(envelope(x), 1, 6, 500) for x in fires]
    ticks = [periodicity(envelope(x), 1, 6, 500) for x in several("clock tick")]
    assert np.median(beats) < 0.5 * np.median(ticks)


@pytest.mark.parametrize(
    ("label", "low_hz", "high_hz"), [("rooster", 400, 1300), ("crying baby", 250, 800)]
)
def test_voices_are_harmonic_at_their_own_pitch(label, low_hz, high_hz):
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


def test_a_sneeze_bursts_with_bright_friction_and_a_helicopter_is_low():
    sneezes = np.median([band_share(x, 2000, 12_000) for x in several("sneezing")])
    rotors = np.median([band_share(x, 2000, 12_000) for x in several("helicopter")])
    assert sneezes > 0.2
    assert rotors < 0.5 * sneezes


def test_barks_of_dogs_span_two_octaves_of_brightness():
    def centroid(x):
        power = np.abs(np.fft.rfft(x)) ** 2
        return (power * np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)).sum() / power.sum()

    centres = [centroid(sound("dog", np.random.default_rng(seed))) for seed in range(20)]
    assert max(centres) > 4 * min(centres)


def test_light_rain_has_drops_above_its_hiss():
    def impulsiveness(x):
        # Fourth moment over squared second moment: 3 for Gaussian noise.
        bright = np.diff(x.astype(np.float64))
        return np.mean(bright**4) / np.mean(bright**2) ** 2

    rains = [impulsiveness(sound("rain", np.random.default_rng(seed))) for seed in range(12)]
    assert max(rains) > 8
    assert min(rains) < 4


@pytest.mark.parametrize("label", ["chainsaw", "helicopter", "rooster", "crying baby"])
def test_a_pitched_source_has_many_partials_not_one_tone(label):
    for x in several(label):
        power = np.sort(np.abs(np.fft.rfft(x)) ** 2)[::-1]
        assert power[:10].sum() < 0.5 * power.sum()
        assert band_share(x, 50, 12_000) > 0.02
