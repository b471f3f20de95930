"""Count the tones: a short sound with some tones in it; the listener writes how many.

It tells that somebody hears and attends, whatever they listen with: both ears get the same.
Source: the listening test of the paper (Section 4.2), after ReSEval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from study.config import StudyConfig
from study.prescreen.item import SAMPLE_RATE, Item, Sound, draw_seed, ramped

TONE_SECONDS = 0.22
GAP_SECONDS = 0.20  # the least silence between two tones: below about 0.1 s people begin to miscount
SLOT_SECONDS = 0.55
EDGE_SECONDS = 0.35
RAMP_SECONDS = 0.01
LEVEL = 0.2  # peak of a tone


@dataclass(frozen=True)
class ToneItem(Item):
    """`count` tones at times and pitches drawn from `seed`, in `slots` slots of time."""

    count: int
    slots: int
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator, config: StudyConfig) -> Self:
        tones = config.prescreen.tones
        count = int(rng.integers(tones.min_tones, tones.max_tones, endpoint=True))
        return cls(count, tones.max_tones, draw_seed(rng))

    @classmethod
    def answers(cls, config: StudyConfig) -> range:
        return range(config.prescreen.tones.min_tones, config.prescreen.tones.max_tones + 1)

    @property
    def answer(self) -> int:
        return self.count

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound [samples]; its length depends on `slots` alone."""
        rng = np.random.default_rng(self.seed)
        room = self.slots * SLOT_SECONDS
        sound = np.zeros(round((room + 2 * EDGE_SECONDS) * sample_rate), dtype=np.float32)
        # What the tones and their least gaps leave of the room is dealt out at random between them.
        slack = room - self.count * (TONE_SECONDS + GAP_SECONDS)
        cuts = np.sort(rng.uniform(0.0, slack, self.count))
        for index, cut in enumerate(cuts):
            onset = round((EDGE_SECONDS + cut + index * (TONE_SECONDS + GAP_SECONDS)) * sample_rate)
            tone = _tone(440.0 * 2 ** (int(rng.integers(-2, 12)) / 12), sample_rate)
            sound[onset : onset + len(tone)] += tone
        return sound


def _tone(frequency: float, sample_rate: int) -> Sound:
    time = np.arange(round(TONE_SECONDS * sample_rate)) / sample_rate
    tone = LEVEL * np.sin(2 * np.pi * frequency * time)
    return np.asarray(ramped(tone, sample_rate, RAMP_SECONDS), dtype=np.float32)
