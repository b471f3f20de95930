"""A question with any number of answers out of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from study.questions.base import SEPARATOR, AnswerError, BaseQuestion, Option, offered_value, require_options
from study.questions.generalise import Level, offered_level

if TYPE_CHECKING:
    import numpy as np


class MultipleQuestion(BaseQuestion):
    """Any of the `options`: from `least` to `most` of them, or none where no answer is required."""

    description: ClassVar[str] = "any of these"
    several: ClassVar[bool] = True

    type: Literal["multiple"]
    options: list[Option] = Field(default=[], max_length=30, description="The answers to choose from.")
    least: int = Field(default=1, ge=1, description="The fewest answers that may be chosen.")
    most: int | None = Field(default=None, ge=1, description="The most answers that may be chosen; default: all.")

    @model_validator(mode="after")
    def _can_be_answered(self) -> Self:
        require_options(self.id, self.options)
        if any(SEPARATOR in option for option in self.options):
            raise ValueError(f"question '{self.id}' has an option with '{SEPARATOR}', which separates stored answers")
        if not self.least <= (self.most or len(self.options)) <= len(self.options):
            bounds = f"least = {self.least} and most = {self.most or len(self.options)}"
            raise ValueError(f"question '{self.id}': {bounds} do not fit its {len(self.options)} options")
        return self

    @property
    def offered(self) -> list[str]:
        return self.options

    def _accept(self, given: list[str]) -> str:
        chosen = {offered_value(one, self.options) for one in given}
        if len(chosen) < self.least:
            raise AnswerError("Please choose more answers: at least %(least)s.", least=self.least)
        if self.most is not None and len(chosen) > self.most:
            raise AnswerError("Please choose fewer answers: at most %(most)s.", most=self.most)
        return SEPARATOR.join(option for option in self.options if option in chosen)

    def levels(self, given: Sequence[str]) -> tuple[Level, ...]:
        number = offered_level("how many were chosen", self.countable, self._count_in_words, self.split)
        return (*super().levels(given), number)

    def _count_in_words(self, answer: str) -> str:
        number = len(self.split(answer))
        return f"{number} option{'s' * (number > 1)}"

    def simulate(self, rng: np.random.Generator) -> list[str]:
        return [str(option) for option in rng.permutation(self.options)[: self.least]]
