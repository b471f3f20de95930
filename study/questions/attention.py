"""An attention check: a question whose words say which answer to choose.

It follows Prolific's policy for instructional manipulation checks: the instruction is in the question itself, it names
the answer literally, and it needs neither memory nor knowledge. Rootnote records the answer and shows it as one
component of data quality; it never rejects anybody for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from study.languages import mark
from study.questions.base import BaseQuestion, Option, Translation, offered_value, require_options, single_value

if TYPE_CHECKING:
    import numpy as np

TEXT = mark("To show that you read each question, please choose “Somewhat disagree” here.")
OPTIONS = [
    mark("Strongly disagree"),
    mark("Somewhat disagree"),
    mark("Neither agree nor disagree"),
    mark("Somewhat agree"),
    mark("Strongly agree"),
]
EXPECTED = OPTIONS[1]


class AttentionQuestion(BaseQuestion):
    """One of the `options`, of which `text` names the `expected` one."""

    description: ClassVar[str] = "one of these; the question says which"

    type: Literal["attention"]
    text: str = Field(
        default=TEXT, min_length=1, max_length=300, description="The instruction; it names the expected answer."
    )
    options: list[Option] = Field(default=OPTIONS, max_length=30, description="The answers to choose from.")
    expected: Option = Field(default=EXPECTED, description="The answer that the text asks for.")

    @model_validator(mode="after")
    def _names_the_expected_answer(self) -> Self:
        require_options(self.id, self.options)
        if self.expected not in self.options:
            raise ValueError(f"question '{self.id}' expects '{self.expected}', which is not among its options")
        number = self.options.index(self.expected)
        for where, text, option in self._wordings(number):
            if option not in text:
                raise ValueError(
                    f"question '{self.id}' must name the expected answer in its text{where}: the words '{option}' are "
                    "missing (an instruction that leaves room for interpretation is no fair attention check)"
                )
        return self

    def _wordings(self, number: int) -> list[tuple[str, str, str]]:
        """Where, the text and the expected answer, in each language."""
        translated: list[tuple[str, Translation]] = list(self.translations.items())
        return [
            ("", self.text, self.expected),
            *((f" in '{language}'", words.text, words.options[number]) for language, words in translated),
        ]

    @property
    def offered(self) -> list[str]:
        return self.options

    def _accept(self, given: list[str]) -> str:
        return offered_value(single_value(given), self.options)

    def is_passed(self, answer: str) -> bool:
        return answer == self.expected

    def simulate(self, rng: np.random.Generator) -> list[str]:
        return [self.expected]
