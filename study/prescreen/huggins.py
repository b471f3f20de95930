"""Huggins pitch: three noises, in one of them a faint tone that only two ears together can hear.

The noise of the target is shifted by 180 degrees between 564 and 636 Hz in the right ear; the other two are the same
in both. Either ear alone gets plain noise, so the tone is there over headphones only; where both channels meet, as
from loudspeakers, the band cancels instead, which leaves a dip of 72 Hz and no tone.
Source: Milne et al. (2020), An online headphone screening test based on dichotic pitch, Behavior Research Methods 53
(600 Hz, ±6 %, 1 s, six trials, all to be right, two attempts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from study.config import StudyConfig
from study.prescreen.item import INTERVAL_SECONDS, INTERVALS, SAMPLE_RATE, Item, Sound, draw_seed, in_row, ramped

CENTRE_HZ = 600.0
WIDTH = 0.06  # of the centre, to either side
RAMP_SECONDS = 0.03
LOUDEST_DBFS = -18.0  # noise peaks at four to five times its RMS


@dataclass(frozen=True)
class HugginsItem(Item):
    """The tone is in interval `target` (1 to 3); `level_dbfs` is the RMS of a noise."""

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

    @property
    def answer(self) -> int:
        return self.target

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound [samples, 2]."""
        rng = np.random.default_rng(self.seed)
        intervals = []
        for number in range(1, INTERVALS + 1):
            noise = 10 ** (self.level_dbfs / 20) * rng.standard_normal(round(INTERVAL_SECONDS * sample_rate))
            # Both are made every time, so that the work too is the same for every answer.
            shifted = _shifted(noise, sample_rate)
            both = np.stack([noise, shifted if number == self.target else noise], axis=1)
            intervals.append(ramped(both, sample_rate, RAMP_SECONDS))
        return in_row(intervals, sample_rate)


def _shifted(noise: npt.NDArray[np.float64], sample_rate: int) -> npt.NDArray[np.float64]:
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(len(noise), 1 / sample_rate)
    spectrum[np.abs(frequencies - CENTRE_HZ) <= WIDTH * CENTRE_HZ] *= -1
    return np.fft.irfft(spectrum, len(noise))
