"""A question with one answer out of several."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from study.questions.base import BaseQuestion, Option, offered_value, require_options, single_value


class SingleQuestion(BaseQuestion):
    """One of the `options`."""

    description: ClassVar[str] = "one of these"

    type: Literal["single"]
    options: list[Option] = Field(default=[], max_length=30, description="The answers to choose from.")

    @model_validator(mode="after")
    def _has_options(self) -> Self:
        require_options(self.id, self.options)
        return self

    @property
    def offered(self) -> list[str]:
        return self.options

    def _accept(self, given: list[str]) -> str:
        return offered_value(single_value(given), self.options)
