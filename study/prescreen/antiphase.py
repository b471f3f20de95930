"""Antiphase: three tones of 200 Hz; which is the softest?

One is 6 dB softer. Of the other two one is in antiphase, right against left: over headphones it is as loud as its
twin, from loudspeakers it cancels in the air and becomes the softest, so that the right answer is missed.
Somebody who hears one channel only is not found out: each channel alone has one soft tone.
Source: Woods et al. (2017), Headphone screening to facilitate web-based auditory experiments, Attention, Perception &
Psychophysics 79 (six trials, five to be right).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from study.config import StudyConfig
from study.prescreen.item import INTERVAL_SECONDS, INTERVALS, SAMPLE_RATE, Item, Sound, draw_seed, in_row, ramped

FREQUENCY_HZ = 200.0
SOFTER_DB = 6.0
RAMP_SECONDS = 0.1


@dataclass(frozen=True)
class AntiphaseItem(Item):
    """Interval `soft` is the softer one, `antiphase` the one in antiphase; `level_dbfs` is the RMS of the louder."""

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

    @property
    def answer(self) -> int:
        return self.soft

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound [samples, 2]; the phases that the tones begin at are drawn, so no two items are alike."""
        rng = np.random.default_rng(self.seed)
        time = np.arange(round(INTERVAL_SECONDS * sample_rate)) / sample_rate
        intervals = []
        for number in range(1, INTERVALS + 1):
            level = self.level_dbfs - (SOFTER_DB if number == self.soft else 0.0)
            phase = rng.uniform(0, 2 * np.pi)
            tone = 10 ** (level / 20) * np.sqrt(2) * np.sin(2 * np.pi * FREQUENCY_HZ * time + phase)
            both = np.stack([tone, -tone if number == self.antiphase else tone], axis=1)
            intervals.append(ramped(both, sample_rate, RAMP_SECONDS))
        return in_row(intervals, sample_rate)
