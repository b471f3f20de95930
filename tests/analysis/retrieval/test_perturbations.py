"""Each perturbation changes a sound as its name says, and in no other way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from analysis.retrieval.robustness.perturbations import AHEAD_SECONDS, PerturbationInput, rng_for
from analysis.retrieval.robustness.registry import PERTURBATIONS

RATE = 44_100
LENGTH = 3 * RATE


def tone(hertz: float, samples: int = LENGTH) -> np.ndarray:
    return (0.2 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)).astype(np.float32)


def music(seed: int, samples: int = LENGTH + int(AHEAD_SECONDS * RATE)) -> np.ndarray:
    """Bursts of noise with a falling spectrum, whose onsets allow alignment."""
    rng = np.random.default_rng(seed)
    sound = scipy.signal.lfilter([1], [1, -0.97], rng.standard_normal(samples))
    bursts = np.repeat(rng.uniform(0.1, 1, samples // 4410 + 1), 4410)[:samples]
    return (0.05 * sound * bursts).astype(np.float32)


SOUND = music(0)
OTHER = music(1, LENGTH)
MATERIAL = PerturbationInput(SOUND[:LENGTH], SOUND, RATE, OTHER)


def changed(name: str, level: float, material: PerturbationInput = MATERIAL) -> np.ndarray:
    return PERTURBATIONS[name].apply(material, level, rng_for(0, name, level, 7))


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=float))))


def peak_hertz(samples: np.ndarray) -> float:
    middle = samples[RATE // 2 : RATE // 2 + 2 * RATE]
    return float(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() / 2)


def lag(samples: np.ndarray, of: np.ndarray) -> int:
    """The delay of `samples` relative to `of`, in samples."""
    product = scipy.signal.correlate(samples, of, mode="full", method="fft")
    return int(product.argmax()) - (len(of) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_level_gives_finite_sound_that_is_the_same_again_and_leaves_the_clip_alone(name):
    assert PERTURBATIONS[name].name == name
    before = MATERIAL.clip.copy()
    for level in PERTURBATIONS[name].levels[:: max(1, len(PERTURBATIONS[name].levels) // 3)]:
        result = changed(name, level)
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
        assert len(result) == (round(LENGTH / level) if name == "stretch" else LENGTH)
        assert (result == changed(name, level)).all()
        assert not np.array_equal(result, before)
    assert (before == MATERIAL.clip).all()


@pytest.mark.parametrize("semitones", [-12, -3, 1, 9])
def test_pitch_moves_a_tone_and_keeps_its_length(semitones):
    result = changed("pitch", semitones, PerturbationInput(tone(440), tone(440), RATE))
    assert peak_hertz(result) == pytest.approx(440 * 2 ** (semitones / 12), abs=3)


def test_stretch_keeps_the_pitch():
    assert peak_hertz(changed("stretch", 0.8, PerturbationInput(tone(440), tone(440), RATE))) == pytest.approx(
        440, abs=2
    )


@pytest.mark.parametrize("percent", [-10, -1, 1, 10])
def test_speed_moves_the_pitch_and_takes_more_of_the_recording(percent):
    long = tone(440, len(SOUND))
    assert peak_hertz(changed("speed", percent, PerturbationInput(long[:LENGTH], long, RATE))) == pytest.approx(
        440 * (1 + percent / 100), abs=1
    )
    # Nothing is silent at the end: what a faster clip lacks comes from the recording.
    assert rms(changed("speed", percent)[-1000:]) > 0


@pytest.mark.parametrize("decibels", [-30, 0, 30])
def test_noise_has_the_level_stated(decibels):
    added = changed("noise", decibels) - MATERIAL.clip
    assert 20 * np.log10(rms(added) / rms(MATERIAL.clip)) == pytest.approx(decibels, abs=0.1)


@pytest.mark.parametrize("decibels", [-24, 0, 6])
def test_mix_adds_the_other_clip_at_the_level_stated(decibels):
    added = changed("mix", decibels) - MATERIAL.clip
    assert 20 * np.log10(rms(added) / rms(MATERIAL.clip)) == pytest.approx(decibels, abs=0.01)
    assert np.corrcoef(added, OTHER)[0, 1] > 0.9999


@pytest.mark.parametrize(("share", "target_first"), [(5, False), (45, False), (50, True), (95, True)])
def test_a_mash_up_is_a_splice_in_time_with_the_share_stated(share, target_first):
    result = changed("mashup", share)
    of_target = result == MATERIAL.clip
    assert of_target.sum() == pytest.approx(LENGTH * share / 100, abs=5)
    edge = slice(0, 100) if target_first else slice(-100, None)
    assert of_target[edge].all()
    assert (result[~of_target] == OTHER[~of_target]).all()


@pytest.mark.parametrize(("name", "level"), [("mp3", 128), ("mp3", 64), ("opus", 96)])
def test_codecs_keep_position_and_level(name, level):
    result = changed(name, level)
    assert abs(lag(result, MATERIAL.clip)) <= 2
    assert rms(result) == pytest.approx(rms(MATERIAL.clip), rel=0.07)


def test_a_lower_bit_rate_is_further_from_the_clip():
    errors = [rms(changed("mp3", level) - MATERIAL.clip) for level in (32, 64, 128)]
    assert errors[0] > errors[1] > errors[2]


def test_late_begins_as_many_seconds_later():
    assert (changed("late", 0.5) == SOUND[RATE // 2 : RATE // 2 + LENGTH]).all()


@pytest.mark.parametrize(("name", "kept", "gone"), [("lowpass", 200, 8000), ("highpass", 8000, 200)])
def test_filters_keep_one_side(name, kept, gone):
    def left(hertz):
        clip = tone(hertz)
        return rms(changed(name, 1000, PerturbationInput(clip, clip, RATE))[RATE:]) / rms(clip[RATE:])

    assert left(kept) == pytest.approx(1, abs=0.02)
    assert left(gone) < 0.01


def test_a_filter_beyond_the_sample_rate_keeps_all():
    low = PerturbationInput(tone(200)[:8000], tone(200), 8000)
    assert (changed("lowpass", 8000, low) == low.clip).all()


def test_gain_is_in_decibels_and_clips_at_full_scale():
    assert changed("gain", -12) == pytest.approx(MATERIAL.clip * 10 ** (-12 / 20), rel=1e-5)
    loud = PerturbationInput(4 * MATERIAL.clip / np.abs(MATERIAL.clip).max() / 4, SOUND, RATE)
    assert np.abs(changed("gain", 12, loud)).max() == 1


def test_compression_brings_loud_and_soft_nearer():
    def spread(samples):
        levels = [rms(part) for part in np.array_split(samples, 30)]
        return 20 * np.log10(max(levels) / min(levels))

    assert spread(changed("compression", 8)) < spread(MATERIAL.clip) - 2


def test_more_reverberation_is_further_from_the_clip_at_the_same_level():
    heard = [np.corrcoef(changed("reverb", level), MATERIAL.clip)[0, 1] for level in (10, 50, 75)]
    assert heard[0] > heard[1] > heard[2]
    assert rms(changed("reverb", 50)) == pytest.approx(rms(MATERIAL.clip), rel=1e-3)


def test_resynthesis_keeps_the_spectrum_and_loses_the_phase():
    result = changed("resynthesis", 256)
    spectra = [scipy.signal.welch(one, RATE, nperseg=4096)[1] for one in (result, MATERIAL.clip)]
    assert np.corrcoef(np.log(spectra[0] + 1e-12), np.log(spectra[1] + 1e-12))[0, 1] > 0.9
    assert abs(np.corrcoef(result, MATERIAL.clip)[0, 1]) < 0.9


def test_each_target_has_its_own_random_numbers():
    one, again, other = (rng_for(0, "noise", 0, target).standard_normal(4) for target in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).all()


def test_a_mixture_without_another_clip_is_an_error():
    with pytest.raises(ValueError, match="only one was given"):
        changed("mix", 0, PerturbationInput(MATERIAL.clip, SOUND, RATE))
