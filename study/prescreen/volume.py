"""Set the volume: a soft broken chord, about as loud as the clips. Nothing is asked, so no listener can fail."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from study.languages import mark
from study.prescreen.item import SAMPLE_RATE, AnswerField, Heard, Item, Sound
from study.prescreen.settings import StepConfig

if TYPE_CHECKING:
    from study.config import StudyConfig

NOTES = (261.63, 329.63, 392.00, 523.25, 392.00, 329.63, 261.63, 392.00)
RAMP_SECONDS = 0.01
DONE = 1  # what the page sends after the sound was heard


@dataclass(frozen=True)
class VolumeItem(Item):
    """A chord of RMS `level_dbfs`."""

    title: ClassVar[str] = "Set the volume"
    summary: ClassVar[str] = "plays a soft chord and adjusts the volume until it is comfortable. Nothing is asked."
    field: ClassVar[AnswerField] = AnswerField("heard", DONE, DONE, mark("Please play the sound to the end first."))
    settings: ClassVar[type[StepConfig] | None] = None
    graded: ClassVar[bool] = False

    level_dbfs: float

    @classmethod
    def draw(cls, rng: np.random.Generator, config: StudyConfig) -> Self:
        return cls(config.stimuli.loudness_lufs)

    @classmethod
    def answers(cls, config: StudyConfig) -> range:
        return range(DONE, DONE + 1)

    @classmethod
    def simulate(cls, heard: Heard, sample_rate: int, rng: np.random.Generator) -> int:
        return DONE

    @property
    def answer(self) -> int:
        return DONE

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        return volume_sound(self.level_dbfs, sample_rate)


@functools.lru_cache(maxsize=4)  # every listener gets the same
def volume_sound(loudness_dbfs: float, sample_rate: int = SAMPLE_RATE, seconds: float = 4.0) -> Sound:
    """A soft broken chord for setting the volume, float32 [samples] (read-only), about as loud as the clips.

    Between 200 and 800 Hz the K-weighting of ITU-R BS.1770 is nearly flat, so RMS in dBFS approximates LUFS.
    """
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    sound = np.zeros(len(time))
    for index, frequency in enumerate(NOTES):
        since = time - index * seconds / len(NOTES)
        started = since >= 0
        envelope = np.where(started, np.minimum(since / RAMP_SECONDS, 1.0) * np.exp(-np.maximum(since, 0) / 0.9), 0)
        for harmonic, weight in ((1, 1.0), (2, 0.35), (3, 0.12)):
            sound += envelope * weight * np.sin(2 * np.pi * frequency * harmonic * since)
    sound *= np.clip((seconds - time) / 0.05, 0.0, 1.0)
    scaled = np.asarray(sound * 10 ** (loudness_dbfs / 20) / np.sqrt(np.mean(sound**2)), dtype=np.float32)
    scaled.setflags(write=False)
    return scaled
