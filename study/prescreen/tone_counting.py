"""Count the tones: the listener hears a short sound with some tones in it and enters how many.

It shows that somebody hears and pays attention, whatever they listen with: both ears get the same.
Source: the listening test of the paper (Section 4.2), after ReSEval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from study.languages import mark
from study.prescreen.item import SAMPLE_RATE, AnswerField, Heard, Item, Sound, draw_seed, ramped
from study.prescreen.settings import StepConfig

if TYPE_CHECKING:
    from study.config import StudyConfig

TONE_SECONDS = 0.22
GAP_SECONDS = 0.20  # the shortest silence between two tones: below about 0.1 s people begin to miscount
SLOT_SECONDS = 0.55
EDGE_SECONDS = 0.35
RAMP_SECONDS = 0.01
LEVEL = 0.2  # peak of a single tone; several are softer, so that the whole has the same level
NOISE_LEVEL = 0.002  # of a faint noise under the tones
DETUNED = 0.02  # at most, by which a tone is higher or lower than its note
FRAME_SECONDS = 0.01  # in which a simulated listener hears


class TonesConfig(StepConfig):
    """Count the tones: as in the paper."""

    items: int = Field(default=2, ge=1, le=10, description="How many sounds an attempt has.")
    min_tones: int = Field(default=4, ge=1, le=12, description="The smallest number of tones in a sound.")
    max_tones: int = Field(default=8, ge=2, le=16, description="The largest number of tones in a sound.")

    @model_validator(mode="after")
    def _range(self) -> TonesConfig:
        if self.max_tones <= self.min_tones:
            raise ValueError("max_tones must be above min_tones")
        return self


@dataclass(frozen=True)
class ToneItem(Item):
    """`count` tones at times and pitches drawn from `seed`, in `slots` slots of time."""

    title: ClassVar[str] = "Count the tones"
    summary: ClassVar[str] = "counts the tones in a short recording, which shows that sounds can be heard at all."
    field: ClassVar[AnswerField] = AnswerField(
        "count", 0, 99, mark("Please enter how many tones you heard, as a number.")
    )
    settings: ClassVar[type[StepConfig] | None] = TonesConfig

    count: int
    slots: int
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator, config: StudyConfig) -> Self:
        tones = config.prescreen.typed_section("tones", TonesConfig)
        count = int(rng.integers(tones.min_tones, tones.max_tones, endpoint=True))
        return cls(count, tones.max_tones, draw_seed(rng))

    @classmethod
    def answers(cls, config: StudyConfig) -> range:
        tones = config.prescreen.typed_section("tones", TonesConfig)
        return range(tones.min_tones, tones.max_tones + 1)

    @classmethod
    def simulate(cls, heard: Heard, sample_rate: int, rng: np.random.Generator) -> int:
        """Count the onsets of the envelope, in frames of 10 ms."""
        mono = heard.mean(axis=1)
        frame = round(FRAME_SECONDS * sample_rate)
        frames = mono[: len(mono) // frame * frame].reshape(-1, frame)
        envelope = np.sqrt(np.mean(frames**2, axis=1))
        if envelope.max() < 1e-4:
            return 0
        loud = envelope > 0.3 * envelope.max()
        # A tone takes several frames: a single frame is a click, a single gap is a beat within a tone.
        loud = np.convolve(loud, np.ones(3), mode="same") >= 2
        return int(np.count_nonzero(np.diff(loud.astype(int), prepend=0) == 1))

    @property
    def answer(self) -> int:
        return self.count

    @property
    def seconds(self) -> float:
        """Computed without the sound: the server needs it for every answer."""
        return self._samples(SAMPLE_RATE) / SAMPLE_RATE

    def _samples(self, sample_rate: int) -> int:
        return round((self.slots * SLOT_SECONDS + 2 * EDGE_SECONDS) * sample_rate)

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound [samples]; its length depends only on `slots`, and its level on nothing."""
        rng = np.random.default_rng(self.seed)
        room = self.slots * SLOT_SECONDS
        sound = np.zeros(self._samples(sample_rate), dtype=np.float32)
        # The time that the tones and their shortest gaps leave is distributed at random between them.
        slack = room - self.count * (TONE_SECONDS + GAP_SECONDS)
        cuts = np.sort(rng.uniform(0.0, slack, self.count))
        for index, cut in enumerate(cuts):
            onset = round((EDGE_SECONDS + cut + index * (TONE_SECONDS + GAP_SECONDS)) * sample_rate)
            note = 440.0 * 2 ** (int(rng.integers(-2, 12)) / 12)
            tone = _tone(note * rng.uniform(1 - DETUNED, 1 + DETUNED), sample_rate)
            sound[onset : onset + len(tone)] += tone / np.sqrt(self.count)
        noise = NOISE_LEVEL * rng.standard_normal(len(sound))
        return np.clip(sound + noise, -LEVEL, LEVEL).astype(np.float32)


def _tone(frequency: float, sample_rate: int) -> Sound:
    time = np.arange(round(TONE_SECONDS * sample_rate)) / sample_rate
    tone = LEVEL * np.sin(2 * np.pi * frequency * time)
    return np.asarray(ramped(tone, sample_rate, RAMP_SECONDS), dtype=np.float32)
