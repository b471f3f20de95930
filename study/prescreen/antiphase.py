"""Antiphase: three tones of 200 Hz; which is the softest?

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

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound [samples, 2]; the phases at which the tones start are drawn, so no two items are alike."""
        rng = np.random.default_rng(self.seed)
        time = np.arange(round(INTERVAL_SECONDS * sample_rate)) / sample_rate
        intervals = []
        for number in range(1, INTERVALS + 1):
            level = self.level_dbfs - (SOFTER_DB if number == self.soft else 0.0)
            phase = rng.uniform(0, 2 * np.pi)
            tone = 10 ** (level / 20) * np.sqrt(2) * np.sin(2 * np.pi * FREQUENCY_HZ * time + phase)
            both = np.stack([tone, -tone if number == self.antiphase else tone], axis=1)
            intervals.append(ramped(both, sample_rate, RAMP_SECONDS))
        return join_intervals(intervals, sample_rate)
