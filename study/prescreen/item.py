"""An item of a prescreen: a sound, and the whole number that is the right answer to it.

Conventions: sounds are float32 in [-1, 1], shape [samples] where both ears get the same, else [samples, 2] (left,
right). All items of a step last the same and are served as PCM, so that neither length nor size tells the answer;
an item is drawn anew for each listener and attempt, so that no table of checksums tells it either.
"""

from __future__ import annotations

import io
import wave
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from study.config import StudyConfig

SAMPLE_RATE = 22050
INTERVALS = 3
INTERVAL_SECONDS = 1.0
GAP_SECONDS = 0.5  # between two intervals; half of it before the first and after the last
# When each interval begins and ends in the sound, in seconds.
INTERVAL_SPANS = tuple(
    (start, start + INTERVAL_SECONDS)
    for start in (GAP_SECONDS / 2 + number * (INTERVAL_SECONDS + GAP_SECONDS) for number in range(INTERVALS))
)

Sound = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Item(ABC):
    """What is stored of an item: all that its sound follows from, as numbers."""

    graded: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def draw(cls, rng: np.random.Generator, config: StudyConfig) -> Self:
        """Draw a fresh item; every right answer is equally likely."""

    @classmethod
    @abstractmethod
    def answers(cls, config: StudyConfig) -> range:
        """The answers that the page offers or asks for."""

    @property
    @abstractmethod
    def answer(self) -> int:
        """The right answer."""

    @abstractmethod
    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound, the same at every call."""


def draw_seed(rng: np.random.Generator) -> int:
    """A seed that JSON keeps exactly."""
    return int(rng.integers(0, 2**53))


def ramped(sound: npt.NDArray[np.float64], sample_rate: int, seconds: float) -> npt.NDArray[np.float64]:
    """A sound [samples] or [samples, 2] between raised-cosine ramps."""
    time = np.arange(len(sound)) / sample_rate
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.clip(np.minimum(time, time[-1] - time) / seconds, 0.0, 1.0))
    return np.asarray(sound * (ramp if sound.ndim == 1 else ramp[:, None]))


def in_row(intervals: Sequence[npt.NDArray[np.float64]], sample_rate: int) -> Sound:
    """Intervals [samples, 2] one after the other; each stands in the midst of an equal part of the whole."""
    edge = np.zeros((round(GAP_SECONDS / 2 * sample_rate), 2))
    return np.concatenate([part for each in intervals for part in (edge, each, edge)]).astype(np.float32)


def encode_wav(sound: Sound, sample_rate: int = SAMPLE_RATE) -> bytes:
    """16-bit PCM; the number of bytes depends on the number of samples and channels alone."""
    pcm = np.round(np.clip(sound, -1.0, 1.0) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()
