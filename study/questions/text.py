"""A question that is answered in the listener's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from study.questions.base import AnswerError, BaseQuestion, single_value
from study.questions.generalise import Level

if TYPE_CHECKING:
    import numpy as np

TEXT_LIMIT = 2000
ANSWERING_RATE = 0.2  # of simulated listeners, where no answer is required


class TextQuestion(BaseQuestion):
    """Free text in a field of `lines` lines, at most `limit` characters."""

    description: ClassVar[str] = "free text"
    unpublished: ClassVar[str] = "free text"

    type: Literal["text"]
    lines: int = Field(default=3, ge=1, le=20, description="The height of the field.")
    limit: int = Field(default=TEXT_LIMIT, ge=1, le=TEXT_LIMIT, description="The longest answer, in characters.")

    @property
    def free_text_characters(self) -> int:
        return self.limit

    def _accept(self, given: list[str]) -> str:
        text = single_value(given)
        if len(text) > self.limit:
            raise AnswerError("Please keep this answer below %(limit)s characters.", limit=self.limit + 1)
        return text

    def levels(self, given: Sequence[str]) -> tuple[Level, ...]:
        return ()

    def simulate(self, rng: np.random.Generator) -> list[str]:
        answers = self.required or rng.random() < ANSWERING_RATE
        return ["A simulated listener's remark."[: self.limit]] if answers else []
