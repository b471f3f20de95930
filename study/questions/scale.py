"""A question that is answered by a point on a scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from study.questions.base import AnswerError, BaseQuestion, Option, single_value
from study.questions.generalise import Level, offered_level, span


class ScaleQuestion(BaseQuestion):
    """A point from 1 to `points`; `options`, if there are any, label its two ends."""

    description: ClassVar[str] = "a point on a scale"

    type: Literal["scale"]
    points: int = Field(default=5, ge=2, le=11, description="The number of points.")
    options: list[Option] = Field(default=[], description="Labels of the first and the last point; empty: no labels.")

    @model_validator(mode="after")
    def _labels_both_ends(self) -> Self:
        if len(self.options) not in (0, 2):
            raise ValueError(f"question '{self.id}' needs no options or two, which label the ends of its scale")
        return self

    @property
    def offered(self) -> list[str]:
        return self.options

    @property
    def countable(self) -> Sequence[str]:
        return [str(point) for point in range(1, self.points + 1)]

    def _accept(self, given: list[str]) -> str:
        point = single_value(given)
        if point not in self.countable:
            raise AnswerError("Please choose a point from 1 to %(points)s.", points=self.points)
        return point

    def label(self, answer: str) -> str:
        ends = dict(zip(("1", str(self.points)), self.options, strict=False))
        return f"{answer} ({ends[answer]})" if answer in ends else answer

    def levels(self, given: Sequence[str]) -> tuple[Level, ...]:
        return (*super().levels(given), *(self._merged(size) for size in range(2, self.points)))

    def _merged(self, size: int) -> Level:
        """Groups of `size` points."""

        def coarsen(answer: str) -> str:
            first = (int(answer) - 1) // size * size + 1
            return span(first, min(first + size - 1, self.points))

        return offered_level(f"{size} points together", self.countable, coarsen)
