"""Questions: what a listener is asked after the trials, and which answers are taken.

A type of question is a model here, one line in `Question`, and a template of the type's name under
server/templates/questions; nothing branches. An answer is kept as one text: an option in the words of study.toml, a
point of a scale or a number in plain decimals, several options joined by "|", and left empty as the empty string.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from study.languages import mark

TEXT_LIMIT = 2000
FORM_LIMIT = 20_000  # characters of all text questions, which are one form: twelve bytes each as they are sent
NUMBER = re.compile(r"-?[0-9]{1,15}([.,][0-9]{1,15})?")
SEPARATOR = "|"
NOT_SAID = "not said"
Option = Annotated[str, Field(min_length=1, max_length=200)]


class AnswerError(ValueError):
    """An answer cannot be taken; `message` is one plain sentence for the listener, with %(name)s for `values`."""

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message % values)
        self.message, self.values = message, values


class Translation(BaseModel):
    """A question's words in another language; `options` are as many as the question's, in the same order."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    text: str = Field(min_length=1, max_length=300)
    options: list[Option] = []
    unit: str = Field(default="", max_length=40)


class BaseQuestion(BaseModel):
    """What all questions have. A type adds its own settings and says which answers it takes.

    `text` and `options` are in the study's first language, in which answers are kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    text: str = Field(min_length=1, max_length=300)
    required: bool = False
    translations: dict[str, Translation] = {}

    @model_validator(mode="after")
    def _translated_whole(self) -> Self:
        for language, words in self.translations.items():
            if len(words.options) != len(self.offered):
                raise ValueError(
                    f"question '{self.id}' has {len(self.offered)} options, but in '{language}' {len(words.options)}"
                )
        return self

    def check(self, sent: Sequence[str]) -> str:
        """The answer as it is kept.

        Raises:
            AnswerError: where it is missing though required, too long, or none of those offered.
        """
        given = [text for raw in sent if (text := clean_text(raw))]
        if given:
            return self._take(given)
        if self.required:
            raise AnswerError("Please answer this question.")
        return ""

    @property
    def offered(self) -> list[str]:
        """The options as study.toml words them; none for types without."""
        return []

    @property
    def countable(self) -> Sequence[str]:
        """The answers that can be counted one by one; none where they cannot."""
        return self.offered

    def _take(self, given: list[str]) -> str:
        raise NotImplementedError


class TextQuestion(BaseQuestion):
    """Words of the listener's own, on `lines` lines, at most `limit` characters."""

    type: Literal["text"]
    lines: int = Field(default=3, ge=1, le=20)
    limit: int = Field(default=TEXT_LIMIT, ge=1, le=TEXT_LIMIT)

    def _take(self, given: list[str]) -> str:
        text = _only(given)
        if len(text) > self.limit:
            raise AnswerError("Please keep this answer below %(limit)s characters.", limit=self.limit + 1)
        return text


def text_characters(questions: Iterable[BaseQuestion]) -> int:
    """How many characters the answers to the text questions among these may hold together."""
    return sum(one.limit for one in questions if isinstance(one, TextQuestion))


class SingleQuestion(BaseQuestion):
    """One of the `options`."""

    type: Literal["single"]
    options: list[Option] = Field(default=[], max_length=30)

    @model_validator(mode="after")
    def _enough(self) -> SingleQuestion:
        _require_options(self.id, self.options)
        return self

    @property
    def offered(self) -> list[str]:
        return self.options

    def _take(self, given: list[str]) -> str:
        return _offered(_only(given), self.options)


class MultipleQuestion(BaseQuestion):
    """Any of the `options`: from `least` to `most` of them, or none where no answer is required."""

    type: Literal["multiple"]
    options: list[Option] = Field(default=[], max_length=30)
    least: int = Field(default=1, ge=1)
    most: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> MultipleQuestion:
        _require_options(self.id, self.options)
        if any(SEPARATOR in option for option in self.options):
            raise ValueError(f"question '{self.id}' has an option with '{SEPARATOR}', which separates the answers kept")
        if not self.least <= (self.most or len(self.options)) <= len(self.options):
            raise ValueError(f"question '{self.id}' wants a number of answers that its options cannot give")
        return self

    @property
    def offered(self) -> list[str]:
        return self.options

    def _take(self, given: list[str]) -> str:
        chosen = {_offered(one, self.options) for one in given}
        if len(chosen) < self.least:
            raise AnswerError("Please choose more of the answers: at least %(least)s.", least=self.least)
        if self.most is not None and len(chosen) > self.most:
            raise AnswerError("Please choose fewer of the answers: at most %(most)s.", most=self.most)
        return SEPARATOR.join(option for option in self.options if option in chosen)


class ScaleQuestion(BaseQuestion):
    """A point from 1 to `points`; `options`, if any, are the words at its two ends."""

    type: Literal["scale"]
    points: int = Field(default=5, ge=2, le=11)
    options: list[Option] = []

    @model_validator(mode="after")
    def _ends(self) -> ScaleQuestion:
        if len(self.options) not in (0, 2):
            raise ValueError(f"question '{self.id}' needs no options or two, the words at the ends of its scale")
        return self

    @property
    def offered(self) -> list[str]:
        return self.options

    @property
    def countable(self) -> Sequence[str]:
        return [str(point) for point in range(1, self.points + 1)]

    def _take(self, given: list[str]) -> str:
        point = _only(given)
        if point not in self.countable:
            raise AnswerError("Please choose a point from 1 to %(points)s.", points=self.points)
        return point


class NumberQuestion(BaseQuestion):
    """A number from `least` to `most`, a `whole` one unless that is false; `unit` stands behind it."""

    type: Literal["number"]
    least: float = Field(default=0, ge=-1e12, le=1e12)
    most: float = Field(default=1_000_000, ge=-1e12, le=1e12)
    whole: bool = True
    unit: str = Field(default="", max_length=40)

    @model_validator(mode="after")
    def _range(self) -> NumberQuestion:
        if self.least >= self.most:
            raise ValueError(f"question '{self.id}': most must be above least")
        return self

    def _take(self, given: list[str]) -> str:
        text = plain_number(_only(given))
        if not NUMBER.fullmatch(text):
            raise AnswerError("Please write this answer as a number, in digits.")
        number = Decimal(text.replace(",", "."))
        if self.whole and number != number.to_integral_value():
            raise AnswerError("Please write a whole number.")
        if not Decimal(str(self.least)) <= number <= Decimal(str(self.most)):
            bounds = {"least": f"{self.least:g}", "most": f"{self.most:.15g}"}
            raise AnswerError("Please write a number from %(least)s to %(most)s.", **bounds)
        return f"{number.normalize() + 0:f}"  # + 0: no minus before a zero


class AgeBandQuestion(BaseQuestion):
    """An age as a band, because nobody need tell their age; `ages` are the bands' first years, the last is open."""

    type: Literal["age_band"]
    text: str = Field(default=mark("How old are you?"), min_length=1, max_length=300)
    ages: list[Annotated[int, Field(ge=0, le=120)]] = Field(default=[18, 25, 35, 45, 55, 65], min_length=2)

    @model_validator(mode="after")
    def _rising(self) -> AgeBandQuestion:
        if self.ages != sorted(set(self.ages)):
            raise ValueError(f"question '{self.id}': ages must rise")
        return self

    @property
    def bands(self) -> list[tuple[int, int | None]]:
        """First and last year of each band; the last has no last year."""
        return [(first, after - 1) for first, after in zip(self.ages, self.ages[1:], strict=False)] + [
            (self.ages[-1], None)
        ]

    @property
    def countable(self) -> Sequence[str]:
        return [*map(band_name, self.bands), NOT_SAID]

    def _take(self, given: list[str]) -> str:
        return _offered(_only(given), self.countable)


Question = Annotated[
    TextQuestion | SingleQuestion | MultipleQuestion | ScaleQuestion | NumberQuestion | AgeBandQuestion,
    Field(discriminator="type"),
]
QUESTION_TYPES: dict[str, type[BaseQuestion]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(get_args(Question)[0])
}


def check_answers(
    questions: Sequence[BaseQuestion], form: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, AnswerError]]:
    """Check fields named q_<id>: (id -> answer, id -> what is wrong); nothing is wrong where the second is empty."""
    answers: dict[str, str] = {}
    wrong: dict[str, AnswerError] = {}
    for question in questions:
        try:
            answers[question.id] = question.check(form.get(f"q_{question.id}", ()))
        except AnswerError as error:
            wrong[question.id] = error
    return answers, wrong


def band_name(band: tuple[int, int | None]) -> str:
    """A band as it is kept: no spreadsheet takes "18 to 24" for a date."""
    first, last = band
    return f"{first} or older" if last is None else f"{first} to {last}"


def split_answer(question: BaseQuestion, answer: str) -> list[str]:
    """The options that a kept answer holds; one, but for those of several."""
    return answer.split(SEPARATOR) if isinstance(question, MultipleQuestion) else [answer]


def clean_text(raw: str) -> str:
    """Strip, with line ends as \\n and without control characters (PostgreSQL takes no NUL)."""
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs")).strip()


def plain_number(text: str) -> str:
    """Digits of any script, minus and decimal signs as ASCII; marks that only turn the direction are left out."""
    signs = {"\u2212": "-", "\u066b": "."}
    seen = (c for c in text if unicodedata.category(c) != "Cf")
    return "".join(signs.get(c) or str(unicodedata.decimal(c, c)) for c in seen)


def _only(given: list[str]) -> str:
    if len(given) > 1:
        raise AnswerError("Please give one answer.")
    return given[0]


def _offered(text: str, options: Sequence[str]) -> str:
    if text not in options:
        raise AnswerError("Please choose one of the answers offered.")
    return text


def _require_options(question: str, options: list[str]) -> None:
    if len(options) < 2:
        raise ValueError(f"question '{question}' needs at least two options")
    if len(set(options)) != len(options):
        raise ValueError(f"question '{question}' has an option twice")
    if any(clean_text(option) != option for option in options):
        raise ValueError(f"question '{question}' has an option with blanks around it")


DEFAULT_QUESTIONS: list[Question] = [
    SingleQuestion(
        id="device",
        type="single",
        text=mark("What did you listen with?"),
        options=[mark("Headphones or earbuds"), mark("Laptop or phone speakers"), mark("External loudspeakers")],
    ),
    SingleQuestion(
        id="music",
        type="single",
        text=mark("How many years have you played an instrument or sung regularly?"),
        options=[mark("None"), mark("1 to 3"), mark("4 to 10"), mark("More than 10")],
    ),
    TextQuestion(id="remarks", type="text", text=mark("Is there anything we should know? (optional)")),
]

# Known to the catalogues of server/locale, so they need no translation in study.toml.
TRANSLATED = frozenset(
    {AgeBandQuestion.model_fields["text"].default}
    | {words for question in DEFAULT_QUESTIONS for words in (question.text, *question.offered)}
)


def missing_translations(questions: Sequence[BaseQuestion], languages: Sequence[str]) -> list[tuple[str, str]]:
    """Which questions have no words in which of a study's further languages: (id, language)."""
    own = [question for question in questions if not TRANSLATED.issuperset((question.text, *question.offered))]
    return [(one.id, language) for language in languages[1:] for one in own if language not in one.translations]
