"""A question type: a slider from 0 to 100."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from study.questions.base import AnswerError, BaseQuestion, single_value

if TYPE_CHECKING:
    import numpy as np


class SliderQuestion(BaseQuestion):
    """A whole number from 0 to 100."""

    description: ClassVar[str] = "a position on a slider from 0 to 100"
    numeric: ClassVar[bool] = True

    type: Literal["slider"]

    def _accept(self, given: list[str]) -> str:
        value = single_value(given)
        if not (value.isascii() and value.isdigit() and int(value) <= 100):
            raise AnswerError("Please move the slider.")
        return str(int(value))

    def simulate(self, rng: np.random.Generator) -> list[str]:
        return [str(rng.integers(0, 101))]
