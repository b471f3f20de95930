"""Simulated ears: what reaches a listener of the prescreen's sounds, and what is made of it.

They get the encoded sound, as a browser does, and nothing else. Conventions: `crosstalk` is the share of each channel
that reaches the other ear: 0 with headphones, 1 where both channels meet in the air, as far from a pair of
loudspeakers or from a single one. Levels are judged with an error of LEVEL_ERROR_DB; the two ears are compared no
better than to BINAURAL_FLOOR of what they hear, so that a pitch far below it is guessed at.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile

from study.prescreen.item import INTERVALS

FRAME_SECONDS = 0.01
LEVEL_ERROR_DB = 0.7  # about the just noticeable difference of a tone's level
BINAURAL_FLOOR = 0.1
PITCH_BAND = (540.0, 660.0)  # Hz; what is between is what a pitch around 600 Hz is heard by

Signal = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Hearing:
    """The ears of somebody who listens so; `only` (0 or 1): only that channel is heard, as with one earbud."""

    crosstalk: float = 0.0
    only: int | None = None

    def hear(self, data: bytes) -> tuple[Signal, int]:
        """What reaches the ears, [samples, 2] (left, right), and the sample rate."""
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
        left, right = samples[:, 0], samples[:, -1]
        if self.only is not None:
            alone = (left, right)[self.only]
            return np.stack([alone, np.zeros_like(alone)], axis=1), rate
        return np.stack([left + self.crosstalk * right, right + self.crosstalk * left], axis=1), rate


HEADPHONES = Hearing(0.0)
LOUDSPEAKERS = Hearing(1.0)


def count_tones(data: bytes, ears: Hearing = LOUDSPEAKERS, rng: np.random.Generator | None = None) -> int:
    """How many tones sound: the onsets of the envelope, in frames of 10 ms."""
    heard, rate = ears.hear(data)
    mono = heard.mean(axis=1)
    frame = round(FRAME_SECONDS * rate)
    frames = mono[: len(mono) // frame * frame].reshape(-1, frame)
    envelope = np.sqrt(np.mean(frames**2, axis=1))
    if envelope.max() < 1e-4:
        return 0
    loud = envelope > 0.3 * envelope.max()
    # A tone is on for several frames: a lone frame is a click, a lone gap is a beat within a tone.
    loud = np.convolve(loud, np.ones(3), mode="same") >= 2
    return int(np.count_nonzero(np.diff(loud.astype(int), prepend=0) == 1))


def softest_interval(data: bytes, ears: Hearing, rng: np.random.Generator) -> int:
    """The number of the interval that is softest in both ears together."""
    heard, _ = ears.hear(data)
    levels = [_decibels(float(np.mean(part**2))) for part in np.array_split(heard, INTERVALS)]
    return 1 + int(np.argmin(levels + rng.normal(0, LEVEL_ERROR_DB, INTERVALS)))


def pitched_interval(data: bytes, ears: Hearing, rng: np.random.Generator) -> int:
    """The number of the interval in which one ear, taken from the other, leaves most around 600 Hz.

    The equalisation and cancellation of Durlach (1963), without the equalisation.
    """
    heard, rate = ears.hear(data)
    salience = []
    for part in np.array_split(heard, INTERVALS):
        left, right = part.T
        ear = (_band_power(left, rate) + _band_power(right, rate)) / 2
        left_over = _band_power(left - right, rate) / ear if _both_sound(part) else 0.0
        salience.append(_decibels(left_over + BINAURAL_FLOOR))
    return 1 + int(np.argmax(salience + rng.normal(0, LEVEL_ERROR_DB, INTERVALS)))


def _both_sound(part: Signal) -> bool:
    # An ear that hears nothing has nothing to be compared with.
    return bool(np.mean(part**2, axis=0).min() > 0)


def _band_power(signal: Signal, rate: int) -> float:
    size = 1 << (len(signal) - 1).bit_length()  # a power of two is fast
    power = np.abs(np.fft.rfft(signal, size)) ** 2
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    return float(power[(frequencies >= PITCH_BAND[0]) & (frequencies <= PITCH_BAND[1])].sum())


def _decibels(power: float) -> float:
    return 10 * math.log10(power + 1e-12)


def _volume(data: bytes, ears: Hearing, rng: np.random.Generator) -> int:
    return 1


# What a listener answers to an item of each step: (sound, ears, rng) -> answer.
ANSWERS: Mapping[str, Callable[[bytes, Hearing, np.random.Generator], int]] = {
    "volume": _volume,
    "tones": count_tones,
    "huggins": pitched_interval,
    "antiphase": softest_interval,
}
