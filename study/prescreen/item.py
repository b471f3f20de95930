"""A step of the prescreen: a class whose instances are its items, each a sound and the right answer to it.

A step is a subclass of `Item` in a file of its own, a line in study.prescreen.registry, and a template of its name in
server/templates/prescreens. Its class attributes and methods state everything that study.toml, the pages, the desk,
exports, the board packet and simulated listeners need to know.

Conventions: sounds are float32 in [-1, 1], shape [samples] where both ears get the same, else [samples, 2] (left,
right). All items of a step have the same duration and are served as PCM, so that neither duration nor size reveals the
answer; an item is drawn for each listener and attempt, so that a table of checksums does not reveal it either. Times,
pitches and noise vary between items; the level of a sound as a whole does not, and is the same whatever the answer.
"""

from __future__ import annotations

import io
import wave
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import numpy.typing as npt

from study.languages import mark
from study.prescreen.settings import StepConfig

if TYPE_CHECKING:
    from study.config import StudyConfig

SAMPLE_RATE = 22050
INTERVALS = 3
INTERVAL_SECONDS = 1.0
GAP_SECONDS = 0.5  # between two intervals; half of it before the first and after the last
SHIFT_SECONDS = 0.15  # at most, by which an interval is early or late
# The part of the sound in which each interval lies, in seconds.
INTERVAL_SPANS = tuple(
    (number * (INTERVAL_SECONDS + GAP_SECONDS), (number + 1) * (INTERVAL_SECONDS + GAP_SECONDS))
    for number in range(INTERVALS)
)

Sound = npt.NDArray[np.float32]
Heard = npt.NDArray[np.float64]  # what reaches the ears, [samples, 2] (left, right)


@dataclass(frozen=True)
class AnswerField:
    """The form field that holds an answer: a whole number from `least` to `most`.

    `problem` is the sentence for a listener whose answer is not such a number; write it as mark("…").
    """

    name: str
    least: int
    most: int
    problem: str

    def other(self, answer: int) -> int:
        """An answer that differs from `answer`."""
        return self.least + (answer - self.least + 1) % (self.most - self.least + 1)


CHOICE_OF_INTERVAL = AnswerField("interval", 1, INTERVALS, mark("Please choose one of the three."))


@dataclass(frozen=True)
class Item(ABC):
    """An item of a step; its fields are what the sound is made from, as numbers, and are stored.

    Class attributes:
        title: what the step is, for researchers and the review board.
        summary: what a participant does in it, for the review board; continues "A participant …".
        field: what the page sends.
        settings: the model of [prescreen.<step>] in study.toml; None: one sound, one attempt, no section.
        graded: whether an answer can be wrong.
    """

    title: ClassVar[str]
    summary: ClassVar[str]
    field: ClassVar[AnswerField]
    settings: ClassVar[type[StepConfig] | None] = StepConfig
    graded: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def draw(cls, rng: np.random.Generator, config: StudyConfig) -> Self:
        """Draw a new item; every right answer is equally likely."""

    @classmethod
    @abstractmethod
    def answers(cls, config: StudyConfig) -> range:
        """The answers that a listener may give or guess."""

    @classmethod
    def simulate(cls, heard: Heard, sample_rate: int, rng: np.random.Generator) -> int:
        """The answer of a simulated listener to a sound as it reaches the ears ([samples, 2])."""
        raise NotImplementedError(f"the prescreen step of {cls.__name__} has no method `simulate`")

    @property
    @abstractmethod
    def answer(self) -> int:
        """The right answer."""

    @property
    def seconds(self) -> float:
        """How long the sound lasts: the same for all items of a step in one study."""
        return len(self.render()) / SAMPLE_RATE

    @abstractmethod
    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        """The sound, the same at every call."""


def draw_seed(rng: np.random.Generator) -> int:
    """A seed that JSON stores exactly."""
    return int(rng.integers(0, 2**53))


def ramped(sound: npt.NDArray[np.float64], sample_rate: int, seconds: float) -> npt.NDArray[np.float64]:
    """A sound [samples] or [samples, 2] with raised-cosine ramps at both ends."""
    time = np.arange(len(sound)) / sample_rate
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.clip(np.minimum(time, time[-1] - time) / seconds, 0.0, 1.0))
    return np.asarray(sound * (ramp if sound.ndim == 1 else ramp[:, None]))


def join_intervals(
    intervals: Sequence[npt.NDArray[np.float64]], sample_rate: int, rng: np.random.Generator | None = None
) -> Sound:
    """Intervals [samples, 2] one after the other, each in an equal part of the whole.

    Args:
        rng: shifts each by up to SHIFT_SECONDS from the middle of its part; without it they are in the middle.
    """
    edge, parts = round(GAP_SECONDS / 2 * sample_rate), []
    for interval in intervals:
        shift = 0.0 if rng is None else rng.uniform(-SHIFT_SECONDS, SHIFT_SECONDS)
        start = edge + round(shift * sample_rate)
        part = np.zeros((len(interval) + 2 * edge, 2))
        part[start : start + len(interval)] = interval
        parts.append(part)
    return np.concatenate(parts).astype(np.float32)


def encode_wav(sound: Sound, sample_rate: int = SAMPLE_RATE) -> bytes:
    """16-bit PCM; the number of bytes depends only on the number of samples and channels."""
    pcm = np.round(np.clip(sound, -1.0, 1.0) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()
