"""The base of all question types: questions after the trials, and the answers that they accept.

A question type is a subclass of `BaseQuestion` in a file of its own, a line in `study.questionnaire.QUESTION_TYPES`,
and a template of its name in server/templates/questions. Its attributes and methods state everything that pages, the
desk, exports, the public release, the board packet and simulated listeners need to know.

An answer is stored as one text: an option as study.toml words it, a point of a scale or a number in plain decimals,
several options joined by "|", and the empty string where the question was left empty.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from study.questions.generalise import Level, number_levels, offered_level

if TYPE_CHECKING:
    import numpy as np

SEPARATOR = "|"
Option = Annotated[str, Field(min_length=1, max_length=200)]


class AnswerError(ValueError):
    """An answer is not accepted; `message` is one sentence for the listener, with %(name)s for `values`."""

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message % values)
        self.message, self.values = message, values


class Translation(BaseModel):
    """A question's words in another language; `options` match the question's in number and order."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    text: str = Field(min_length=1, max_length=300)
    options: list[Option] = []
    unit: str = Field(default="", max_length=40)


class BaseQuestion(BaseModel):
    """The common part of all questions. `text` and the options are in the study's first language.

    A subclass adds `type: Literal["<its name>"]`, its settings, and the method `_accept`. The other members have
    defaults that suit a question with neither options nor numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: ClassVar[str] = ""  # the kind of answer, for the review board; empty: the type's name
    numeric: ClassVar[bool] = False  # whether answers are numbers: summarised by quantiles, published in bands
    several: ClassVar[bool] = False  # whether one answer may hold several options
    unpublished: ClassVar[str] = "its question type does not say how answers are published"  # used without `levels`

    id: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,31}$",
        description="The name of the question: its answers are in the column `q_<id>`.",
    )
    type: str = Field(description="The type of the question.")
    text: str = Field(min_length=1, max_length=300, description="What is asked, in the study's first language.")
    required: bool = Field(default=False, description="Whether an answer is required.")
    translations: dict[str, Translation] = Field(
        default={},
        description="Its words in other languages: [questions.translations.<language>] with text, options and unit.",
    )

    @model_validator(mode="after")
    def _has_all_translated_options(self) -> Self:
        for language, words in self.translations.items():
            if len(words.options) != len(self.offered):
                raise ValueError(
                    f"question '{self.id}' has {len(self.offered)} options, but in '{language}' {len(words.options)}"
                )
        return self

    def check(self, sent: Sequence[str]) -> str:
        """The answer as it is stored.

        Raises:
            AnswerError: if it is missing though required, too long, or not one of those offered.
        """
        given = [text for raw in sent if (text := clean_text(raw))]
        if given:
            return self._accept(given)
        if self.required:
            raise AnswerError("Please answer this question.")
        return ""

    def _accept(self, given: list[str]) -> str:
        """The answer as it is stored, from what was sent (at least one text, none empty); AnswerError if wrong."""
        raise NotImplementedError

    @property
    def offered(self) -> list[str]:
        """The options as study.toml words them, which translations translate; none for types without options."""
        return []

    @property
    def countable(self) -> Sequence[str]:
        """The answers that are counted one by one at the desk; none if they cannot be counted."""
        return self.offered

    @property
    def shown_unit(self) -> str:
        """The unit that is shown next to an answer."""
        return ""

    @property
    def free_text_characters(self) -> int:
        """How many characters of free text an answer may have."""
        return 0

    def split(self, answer: str) -> list[str]:
        """The options that a stored answer holds."""
        return answer.split(SEPARATOR) if self.several else [answer]

    def label(self, answer: str) -> str:
        """A countable answer as the desk shows it."""
        return answer

    def is_passed(self, answer: str) -> bool | None:
        """Whether a stored answer passes an attention check; None for a question that is none."""
        return None

    def levels(self, given: Sequence[str]) -> tuple[Level, ...]:
        """How answers are published, from fine to coarse; empty: never, for the reason in `unpublished`.

        Args:
            given: the stored answers of the listeners who gave one.
        """
        if self.numeric:
            return number_levels(given, whole=False)
        if not self.countable:
            return ()
        return (offered_level("as answered", self.countable, split=self.split),)

    def simulate(self, rng: np.random.Generator) -> list[str]:
        """The values that a simulated listener sends; an empty list leaves the question empty."""
        if self.countable:
            return [str(rng.choice(list(self.countable)))]
        raise NotImplementedError(f"the question type '{self.type}' has no method `simulate`")


def clean_text(raw: str) -> str:
    """Strip, with line ends as \\n and without control characters (PostgreSQL accepts no NUL)."""
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs")).strip()


def plain_number(text: str) -> str:
    """Digits of any script, minus and decimal signs as ASCII; marks of direction are left out."""
    signs = {"\u2212": "-", "\u066b": "."}
    visible = (c for c in text if unicodedata.category(c) != "Cf")
    return "".join(signs.get(c) or str(unicodedata.decimal(c, c)) for c in visible)


def single_value(given: list[str]) -> str:
    """The one value of an answer; AnswerError if there are several."""
    if len(given) > 1:
        raise AnswerError("Please give one answer.")
    return given[0]


def offered_value(text: str, options: Sequence[str]) -> str:
    """An option; AnswerError if it is not offered."""
    if text not in options:
        raise AnswerError("Please choose one of the answers offered.")
    return text


def require_options(question: str, options: list[str]) -> None:
    """Check the options of a question with this id; ValueError if they make no sense."""
    if len(options) < 2:
        raise ValueError(f"question '{question}' needs at least two options")
    if len(set(options)) != len(options):
        raise ValueError(f"question '{question}' lists an option twice")
    if any(clean_text(option) != option for option in options):
        raise ValueError(f"question '{question}' has an option that starts or ends with a space")
