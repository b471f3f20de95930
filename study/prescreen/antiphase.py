"""Antiphase: three tones of about 200 Hz; which is the softest?

One is 6 dB softer. Of the other two one is in antiphase, right against left: over headphones it is as loud as the
other; from loudspeakers it cancels in the air and becomes the softest, so that the answer is wrong.
A listener who hears one channel only is not detected: each channel alone has one soft tone.
Source: Woods et al. (2017), Headphone screening to facilitate web-based auditory experiments, Attention, Perception &
Psychophysics 79 (six trials, five to be right).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from pydantic import Field

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

FREQUENCY_HZ = 200.0
SHIFT = 0.1  # at most, by which an item's tones are higher or lower
NOISE_DB = -30.0  # of a faint noise, against its tone; it cancels where the tone does
SOFTER_DB = 6.0
RAMP_SECONDS = 0.1


class AntiphaseConfig(StepConfig):
    """Find the softest tone: five of six (Woods et al. 2017)."""

    threshold: int | None = Field(default=5, ge=1, description="How many must be right.")


@dataclass(frozen=True)
class AntiphaseItem(Item):
    """Interval `soft` is the softer one, `antiphase` the one in antiphase; `level_dbfs` is the RMS of the louder."""

    title: ClassVar[str] = "Antiphase tones"
    summary: ClassVar[str] = (
        "chooses the softest of three low tones, which fails over loudspeakers (Woods et al. 2017)."
    )
    field: ClassVar[AnswerField] = CHOICE_OF_INTERVAL
    settings: ClassVar[type[StepConfig] | None] = AntiphaseConfig

    soft: int
    antiphase: int
    level_dbfs: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator, config: StudyConfig) -> Self:
        soft, antiphase = (int(number) + 1 for number in rng.permutation(INTERVALS)[:2])
        return cls(soft, antiphase, config.stimuli.loudness_lufs, draw_seed(rng))

    @classmethod
    def answers(cls, config: StudyConfig) -> range:
        return range(1, INTERVALS + 1)

    @classmethod
    def simulate(cls, heard: Heard, sample_rate: int, rng: np.random.Generator) -> int:
        """Find the interval that is softest in both ears together."""
        levels = [decibels(float(np.mean(part**2))) for part in intervals_of(heard)]
        return 1 + int(np.argmin(judged(levels, rng)))

    @property
    def answer(self) -> int:
        return self.soft

    @property
    def frequency_hz(self) -> float:
        """The frequency of all three tones: about FREQUENCY_HZ."""
        return FREQUENCY_HZ * float(np.random.default_rng([self.seed, 1]).uniform(1 - SHIFT, 1 + SHIFT))

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound [samples, 2]; times, pitch, phases and noise are drawn, so no two items are alike."""
        rng, frequency = np.random.default_rng(self.seed), self.frequency_hz
        time = np.arange(round(INTERVAL_SECONDS * sample_rate)) / sample_rate
        intervals = []
        for number in range(1, INTERVALS + 1):
            level = self.level_dbfs - (SOFTER_DB if number == self.soft else 0.0)
            tone = np.sqrt(2) * np.sin(2 * np.pi * frequency * time + rng.uniform(0, 2 * np.pi))
            tone += 10 ** (NOISE_DB / 20) * rng.standard_normal(len(time))
            tone *= 10 ** (level / 20) / np.sqrt(np.mean(tone**2))
            both = np.stack([tone, -tone if number == self.antiphase else tone], axis=1)
            intervals.append(ramped(both, sample_rate, RAMP_SECONDS))
        return join_intervals(intervals, sample_rate, rng)
