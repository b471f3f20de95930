"""A prescreen step: three noises, which one is the loudest?"""

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
)
from study.prescreen.perception import decibels, intervals_of, judged
from study.prescreen.settings import StepConfig

if TYPE_CHECKING:
    from study.config import StudyConfig


class LoudestConfig(StepConfig):
    """[prescreen.loudest] in study.toml."""

    items: int = Field(default=3, ge=1, le=10)
    difference_db: float = Field(default=6.0, gt=0, le=12)


@dataclass(frozen=True)
class LoudestItem(Item):
    """The loudest noise is in interval `target`, `difference_db` above the others."""

    title: ClassVar[str] = "The loudest noise"
    summary: ClassVar[str] = "chooses which of three noises is the loudest."
    field: ClassVar[AnswerField] = CHOICE_OF_INTERVAL
    settings: ClassVar[type[StepConfig] | None] = LoudestConfig

    target: int
    difference_db: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator, config: StudyConfig) -> Self:
        settings = config.prescreen.typed_section("loudest", LoudestConfig)
        return cls(int(rng.integers(1, INTERVALS, endpoint=True)), settings.difference_db, draw_seed(rng))

    @classmethod
    def answers(cls, config: StudyConfig) -> range:
        return range(1, INTERVALS + 1)

    @classmethod
    def simulate(cls, heard: Heard, sample_rate: int, rng: np.random.Generator) -> int:
        levels = [decibels(float(np.mean(part**2))) for part in intervals_of(heard)]
        return 1 + int(np.argmax(judged(levels, rng)))

    @property
    def answer(self) -> int:
        return self.target

    def render(self, sample_rate: int = SAMPLE_RATE) -> Sound:
        rng = np.random.default_rng(self.seed)
        size = (round(INTERVAL_SECONDS * sample_rate), 2)
        levels = [0.02 * 10 ** (self.difference_db * (n == self.target) / 20) for n in range(1, INTERVALS + 1)]
        return join_intervals([level * rng.standard_normal(size) for level in levels], sample_rate)
