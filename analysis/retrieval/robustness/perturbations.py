"""Perturbations: changes of a recording, by kind and level.

The first six are those of the paper (Section 5.1, Figure 1) at its levels; the others are common changes of
recordings today. A perturbation is one function of its input and a level, a `Perturbation` that describes it, and one
line in `analysis.retrieval.robustness.registry`.
Conventions: mono float32 with full scale at ±1; each kind states the unit of its levels; randomness comes from `rng`;
the result has the clip's length unless the kind changes it (`stretch`, as in the paper). Samples beyond full scale are
not clipped, because embedders accept them; only files for listening are scaled down.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pedalboard
import soxr

Samples = npt.NDArray[np.float32]
# The source of the other clip of a mixture.
Partner = Literal["corpus", "outside", "generation"]

_MEL_WINDOW = 2048
AHEAD_SECONDS = 1.5  # how much of the recording after the clip a perturbation may use


@dataclass(frozen=True)
class PerturbationInput:
    """A target clip and further input of a perturbation.

    `clip` `[n]` at `rate`; `ahead` `[more than n]` is the recording from the clip's start to beyond its end;
    `other` `[n]` is the clip to mix it with, if the kind has a partner.
    """

    clip: Samples
    ahead: Samples
    rate: int
    other: Samples | None = None

    @property
    def partner(self) -> Samples:
        """The other clip."""
        if self.other is None:
            raise ValueError("this perturbation mixes two clips, but only one was given")
        return self.other


Apply = Callable[[PerturbationInput, float, np.random.Generator], Samples]


@dataclass(frozen=True)
class Perturbation:
    """One kind of perturbation: its names, how it is drawn, its levels, and its function."""

    name: str
    title: str
    unit: str
    levels: tuple[float, ...]
    apply: Apply
    partner: Partner | None = None
    in_paper: bool = False
    log_scale: bool = False

    def label(self, level: float) -> str:
        """The level with its unit, such as "-18 dB"."""
        return f"{level:g} {self.unit}".strip()


def pitch(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Shift by `level` semitones at constant duration (phase vocoder with windows of 512 samples, as in the paper)."""
    from librosa import effects

    shifted = effects.pitch_shift(
        material.clip, sr=material.rate, n_steps=level, bins_per_octave=12, n_fft=512, res_type="soxr_hq"
    )
    return _float32(shifted)


def stretch(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Play at `level` times the tempo at constant pitch; as in the paper, the result is longer or shorter."""
    from librosa import effects

    return _float32(effects.time_stretch(material.clip, rate=level))


def noise(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Add white noise whose RMS is `level` dB above the clip's."""
    drawn = rng.standard_normal(len(material.clip))
    return _float32(material.clip + drawn * (_rms(material.clip) * 10 ** (level / 20)))


def mash_up(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Splice `level` percent of the target and the rest from the other clip, each at its own position in time.

    From 50 % up the target is the beginning, below 50 % it is the end: so the paper's splices, for 50 to 95 %, also
    cover the other clip's share.
    """
    clip, other = material.clip, _fitted(material.partner, len(material.clip))
    kept = round(len(clip) * level / 100)
    if level >= 50:
        return np.concatenate([clip[:kept], other[kept:]])
    return np.concatenate([other[: len(clip) - kept], clip[len(clip) - kept :]])


def mix(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Add another clip of the corpus, scaled so that its RMS is `level` dB above the target's."""
    other = _fitted(material.partner, len(material.clip))
    gain = _rms(material.clip) / max(_rms(other), 1e-9) * 10 ** (level / 20)
    return _float32(material.clip + gain * other)


def codec(name: str, material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Encode at `level` kbit/s and decode."""
    from analysis.retrieval.robustness.codecs import through

    return through(name, material.clip, material.rate, level)


def resynthesis(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Discard the phases: `level` mel bands, converted to sound by Griffin and Lim's algorithm (16 fast iterations).

    This imitates neural codecs and vocoders: the magnitudes stay about right, the phases are invented.
    """
    import librosa

    bands, inverse = _mel_and_back(material.rate, int(level))
    power = np.square(np.abs(librosa.stft(material.clip, n_fft=_MEL_WINDOW)))
    magnitude = np.sqrt(np.maximum(inverse @ (bands @ power), 0))
    seed = int(rng.integers(2**31))
    return _float32(librosa.griffinlim(magnitude, n_iter=16, length=len(material.clip), random_state=seed))


def low_pass(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Keep frequencies below `level` Hz (Butterworth, 24 dB per octave)."""
    return _filtered(material, level, "lowpass")


def high_pass(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Keep frequencies above `level` Hz (Butterworth, 24 dB per octave)."""
    return _filtered(material, level, "highpass")


def reverb(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Add reverberation: `level` percent of the sound is the reverberation of a large room (Freeverb)."""
    share = level / 100
    effect = pedalboard.Reverb(room_size=0.8, damping=0.4, wet_level=share, dry_level=1 - share, width=0.0)
    wet = _effect(effect, material)
    # Freeverb makes the dry part louder; this undoes it, because loudness is not tested here.
    return _float32(wet * (_rms(material.clip) / max(_rms(wet), 1e-9)))


def gain(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Amplify by `level` dB; above 0 dB, samples beyond full scale are clipped, as in a recorder."""
    louder = material.clip * np.float32(10 ** (level / 20))
    return _float32(np.clip(louder, -1, 1) if level > 0 else louder)


def compression(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Compress the dynamics by a ratio of `level` to 1 above a threshold 18 dB below the clip's peak."""
    peak = 20 * np.log10(max(float(np.abs(material.clip).max()), 1e-6))
    return _effect(pedalboard.Compressor(threshold_db=peak - 18, ratio=level, attack_ms=5, release_ms=80), material)


def speed(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """Play the recording `level` percent faster, with its pitch (resampling), and cut it to the clip's length."""
    ratio = 1 + level / 100
    source = material.ahead[: round(len(material.clip) * max(1.0, ratio)) + 64]
    played = soxr.resample(source, round(material.rate * ratio), material.rate)
    return _fitted(_float32(played), len(material.clip))


def late(material: PerturbationInput, level: float, rng: np.random.Generator) -> Samples:
    """A clip of the same recording that begins `level` seconds later."""
    begin = round(level * material.rate)
    return _fitted(material.ahead[begin : begin + len(material.clip)], len(material.clip))


_SHARES = tuple(float(share) for share in range(5, 100, 5))

PITCH = Perturbation("pitch", "Pitch shift", "semitones", (-12, -9, -6, -3, -1, 1, 3, 6, 9, 12), pitch, in_paper=True)
STRETCH = Perturbation(
    "stretch", "Time stretch", "× tempo", (0.8, 0.9, 0.95, 0.99, 1.01, 1.05, 1.1, 1.2), stretch, in_paper=True
)
NOISE = Perturbation("noise", "White noise", "dB", (-30, -24, -18, -12, -6, 0, 6, 12, 18, 24, 30), noise, in_paper=True)
MASHUP = Perturbation("mashup", "Mash-up within the corpus", "% of the target", _SHARES, mash_up, "corpus", True)
MASHUP_OUTSIDE = Perturbation(
    "mashup-outside", "Mash-up with other music", "% of the target", _SHARES, mash_up, "outside", True
)
MASHUP_GENERATION = Perturbation(
    "mashup-generation", "Mash-up of prompt and generation", "% of the prompt", _SHARES, mash_up, "generation", True
)
MP3 = Perturbation("mp3", "MP3", "kbit/s", (32, 64, 96, 128), functools.partial(codec, "mp3"))
OPUS = Perturbation("opus", "Opus", "kbit/s", (16, 32, 64, 96, 128), functools.partial(codec, "opus"))
RESYNTHESIS = Perturbation(
    "resynthesis", "Resynthesis of the mel spectrogram", "bands", (32, 64, 128, 256), resynthesis, log_scale=True
)
LOWPASS = Perturbation("lowpass", "Low pass", "Hz", (500, 1000, 2000, 4000, 8000), low_pass, log_scale=True)
HIGHPASS = Perturbation("highpass", "High pass", "Hz", (100, 250, 500, 1000, 2000), high_pass, log_scale=True)
REVERB = Perturbation("reverb", "Reverberation", "% wet", (10, 25, 50, 75), reverb)
GAIN = Perturbation("gain", "Gain", "dB", (-24, -12, -6, 6, 12), gain)
COMPRESSION = Perturbation("compression", "Dynamic compression", ": 1", (2, 4, 8, 20), compression, log_scale=True)
SPEED = Perturbation("speed", "Speed (tempo and pitch)", "%", (-10, -5, -2, -1, 1, 2, 5, 10), speed)
LATE = Perturbation("late", "Clip begins late", "s", (0.1, 0.3, 0.5, 0.7, 1.0, 1.5), late)
MIX = Perturbation("mix", "Mixed with another clip", "dB", (-24, -18, -12, -6, 0, 6), mix, "corpus")


def rng_for(seed: int, name: str, level: float, target: int) -> np.random.Generator:
    """The random generator of one target at one level: the same whatever else is run, in any order."""
    return np.random.default_rng([seed, *name.encode(), round(level * 1000) % 2**32, target])


@functools.cache
def _mel_and_back(rate: int, count: int) -> tuple[Samples, Samples]:
    """Mel filters `[count, bins]` and their pseudo-inverse `[bins, count]`."""
    from librosa import filters

    bands = filters.mel(sr=rate, n_fft=_MEL_WINDOW, n_mels=count)
    return _float32(bands), _float32(np.linalg.pinv(bands))


def _filtered(material: PerturbationInput, hertz: float, kind: Literal["lowpass", "highpass"]) -> Samples:
    import scipy.signal

    if hertz >= material.rate / 2:
        return material.clip
    sections = scipy.signal.butter(4, hertz, kind, fs=material.rate, output="sos")
    return _float32(scipy.signal.sosfilt(sections, material.clip))


def _effect(effect: pedalboard.Plugin, material: PerturbationInput) -> Samples:
    return _float32(effect.process(material.clip, material.rate, reset=True))


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _fitted(samples: Samples, length: int) -> Samples:
    """Cut or padded with silence to `length`."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def _float32(samples: npt.NDArray[np.floating]) -> Samples:
    return np.ascontiguousarray(samples, dtype=np.float32)
