"""A question that is answered by a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from study.questions.base import AnswerError, BaseQuestion, plain_number, single_value
from study.questions.generalise import NUMBER, Level, number_levels

if TYPE_CHECKING:
    import numpy as np


class NumberQuestion(BaseQuestion):
    """A number from `least` to `most`, `whole` unless that is false; `unit` is shown after it."""

    description: ClassVar[str] = "a number"
    numeric: ClassVar[bool] = True

    type: Literal["number"]
    least: float = Field(default=0, ge=-1e12, le=1e12, description="The smallest number accepted.")
    most: float = Field(default=1_000_000, ge=-1e12, le=1e12, description="The largest number accepted.")
    whole: bool = Field(default=True, description="Whether only whole numbers are accepted.")
    unit: str = Field(default="", max_length=40, description="The unit that is shown after the field.")

    @model_validator(mode="after")
    def _has_range(self) -> Self:
        if self.least >= self.most:
            raise ValueError(f"question '{self.id}': most must be above least")
        return self

    @property
    def shown_unit(self) -> str:
        return self.unit

    def _accept(self, given: list[str]) -> str:
        text = plain_number(single_value(given))
        if not NUMBER.fullmatch(text):
            raise AnswerError("Please enter a number, in digits.")
        number = Decimal(text.replace(",", "."))
        if self.whole and number != number.to_integral_value():
            raise AnswerError("Please enter a whole number.")
        if not Decimal(str(self.least)) <= number <= Decimal(str(self.most)):
            bounds = {"least": f"{self.least:g}", "most": f"{self.most:.15g}"}
            raise AnswerError("Please enter a number from %(least)s to %(most)s.", **bounds)
        return f"{number.normalize() + 0:f}"  # + 0: no minus before a zero

    def levels(self, given: Sequence[str]) -> tuple[Level, ...]:
        return number_levels(given, self.whole)

    def simulate(self, rng: np.random.Generator) -> list[str]:
        if math.ceil(self.least) > math.floor(self.most):
            return [f"{(self.least + self.most) / 2:f}"]
        return [str(rng.integers(math.ceil(self.least), math.floor(self.most), endpoint=True))]
