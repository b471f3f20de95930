"""Huggins pitch: three noises, one of which contains a faint tone that is audible only with both ears.

The noise of the target is shifted by 180 degrees around 600 Hz (±6 %) in the right ear; the other two are the same in
both. The centre varies by 3 % between items. Each ear alone gets plain noise, so the tone is audible only over
headphones; where both channels mix, as from loudspeakers, the band cancels instead, which leaves a dip and no tone.
Source: Milne et al. (2020), An online
headphone screening test based on dichotic pitch, Behavior Research Methods 53 (600 Hz, ±6 %, 1 s, six trials, all must
be right, two attempts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import numpy.typing as npt

from study.prescreen.item import (
    CHOICE_OF_INTERVAL,
    INTERVAL_SECONDS,
    INTERVALS,
    SAMPLE_RATE,
    AnswerField,
    Heard,
    Item,
    Sound,
    draw_seed,
    join_intervals,
    ramped,
)
from study.prescreen.perception import decibels, intervals_of, judged
from study.prescreen.settings import StepConfig

if TYPE_CHECKING:
    from study.config import StudyConfig

CENTRE_HZ = 600.0
SHIFT = 0.03  # at most, by which an item's pitch is higher or lower
WIDTH = 0.06  # of the centre, to either side
RAMP_SECONDS = 0.03
LOUDEST_DBFS = -18.0  # noise peaks at four to five times its RMS
# The precision with which a simulated listener compares the two ears, as a share of the level: a pitch far below it is
# guessed.
BINAURAL_FLOOR = 0.1
PITCH_BAND = (540.0, 660.0)  # Hz; in which a pitch around 600 Hz is heard


class HugginsConfig(StepConfig):
    """Find the tone that only two ears hear: six of six, two attempts (Milne et al. 2020)."""


@dataclass(frozen=True)
class HugginsItem(Item):
    """The tone is in interval `target` (1 to 3); `level_dbfs` is the RMS of a noise."""

    title: ClassVar[str] = "Huggins pitch"
    summary: ClassVar[str] = (
        "chooses which of three noises contains a faint tone that is audible only over headphones (Milne et al. 2020)."
    )
    field: ClassVar[AnswerField] = CHOICE_OF_INTERVAL
    settings: ClassVar[type[StepConfig] | None] = HugginsConfig

    target: int
    level_dbfs: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator, config: StudyConfig) -> Self:
        level = min(config.stimuli.loudness_lufs, LOUDEST_DBFS)
        return cls(int(rng.integers(1, INTERVALS, endpoint=True)), level, draw_seed(rng))

    @classmethod
    def answers(cls, config: StudyConfig) -> range:
        return range(1, INTERVALS + 1)

    @classmethod
    def simulate(cls, heard: Heard, sample_rate: int, rng: np.random.Generator) -> int:
        """Find the interval in which the difference of the ears has most power around 600 Hz.

        The equalisation-cancellation model of Durlach (1963), without the equalisation.
        """
        salience = []
        for part in intervals_of(heard):
            left, right = part.T
            one_ear = (_band_power(left, sample_rate) + _band_power(right, sample_rate)) / 2
            difference = _band_power(left - right, sample_rate) / one_ear if _both_ears_hear(part) else 0.0
            salience.append(decibels(difference + BINAURAL_FLOOR))
        return 1 + int(np.argmax(judged(salience, rng)))

    @property
    def answer(self) -> int:
        return self.target

    @property
    def centre_hz(self) -> float:
        """The pitch of the tone: about CENTRE_HZ."""
        return CENTRE_HZ * float(np.random.default_rng([self.seed, 1]).uniform(1 - SHIFT, 1 + SHIFT))

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound [samples, 2]."""
        rng, centre = np.random.default_rng(self.seed), self.centre_hz
        intervals = []
        for number in range(1, INTERVALS + 1):
            noise = 10 ** (self.level_dbfs / 20) * _noise(round(INTERVAL_SECONDS * sample_rate), rng)
            # Both are computed every time, so that the time taken is the same for every answer.
            shifted = _shifted(noise, sample_rate, centre)
            both = np.stack([noise, shifted if number == self.target else noise], axis=1)
            intervals.append(ramped(both, sample_rate, RAMP_SECONDS))
        return join_intervals(intervals, sample_rate, rng)


def _noise(samples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise of RMS 1 with the same power at every frequency, and random phases.

    In Gaussian noise the few components of the band vary: now and then most of its power lies at an edge.
    """
    phases = rng.uniform(0, 2 * np.pi, samples // 2 + 1)
    noise = np.fft.irfft(np.exp(1j * phases), samples)
    return np.asarray(noise / np.sqrt(np.mean(noise**2)))


def _shifted(noise: npt.NDArray[np.float64], sample_rate: int, centre: float) -> npt.NDArray[np.float64]:
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(len(noise), 1 / sample_rate)
    spectrum[np.abs(frequencies - centre) <= WIDTH * centre] *= -1
    return np.fft.irfft(spectrum, len(noise))


def _both_ears_hear(part: Heard) -> bool:
    return bool(np.mean(part**2, axis=0).min() > 0)


def _band_power(signal: npt.NDArray[np.float64], rate: int) -> float:
    size = 1 << (len(signal) - 1).bit_length()  # a power of two is fast
    power = np.abs(np.fft.rfft(signal, size)) ** 2
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    return float(power[(frequencies >= PITCH_BAND[0]) & (frequencies <= PITCH_BAND[1])].sum())
