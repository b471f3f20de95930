"""The questions that follow the trials: the types by name, how study.toml is read, and how a form is checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from study.languages import mark
from study.questions import attention
from study.questions.age_band import AgeBandQuestion
from study.questions.base import AnswerError, BaseQuestion
from study.questions.single import SingleQuestion
from study.questions.text import TextQuestion
from study.registry import Registry

FORM_LIMIT = 20_000  # characters of all text questions, which are one form: up to twelve bytes each as they are sent

QUESTION_TYPES: Registry[type[BaseQuestion]] = Registry(
    "rootnote.questions",
    {
        "text": "study.questions.text:TextQuestion",
        "single": "study.questions.single:SingleQuestion",
        "multiple": "study.questions.multiple:MultipleQuestion",
        "scale": "study.questions.scale:ScaleQuestion",
        "number": "study.questions.number:NumberQuestion",
        "age_band": "study.questions.age_band:AgeBandQuestion",
        "attention": "study.questions.attention:AttentionQuestion",
    },
)


def read_question(data: Any) -> Any:
    """A question of study.toml as a model of its type."""
    if not isinstance(data, Mapping):
        return data
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in QUESTION_TYPES:
        known = ", ".join(QUESTION_TYPES)
        error = PydanticCustomError("question_type", "a question is one of {known}", {"known": known})
        details = InitErrorDetails(type=error, loc=("type",), input=kind)
        raise ValidationError.from_exception_data("question", [details])
    return QUESTION_TYPES[kind].model_validate(dict(data))


Question = Annotated[SerializeAsAny[BaseQuestion], BeforeValidator(read_question)]


def check_answers(
    questions: Sequence[BaseQuestion], form: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, AnswerError]]:
    """Check fields named q_<id>: (id -> answer, id -> what is wrong); everything is right if the second is empty."""
    answers: dict[str, str] = {}
    wrong: dict[str, AnswerError] = {}
    for question in questions:
        try:
            answers[question.id] = question.check(form.get(f"q_{question.id}", ()))
        except AnswerError as error:
            wrong[question.id] = error
    return answers, wrong


def text_characters(questions: Iterable[BaseQuestion]) -> int:
    """How many characters of free text the answers to these questions may have together."""
    return sum(question.free_text_characters for question in questions)


DEFAULT_QUESTIONS: list[BaseQuestion] = [
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

# Translated in the catalogues of server/locale, so study.toml needs no translation of them.
TRANSLATED = frozenset(
    {AgeBandQuestion.model_fields["text"].default, attention.TEXT, *attention.OPTIONS}
    | {words for question in DEFAULT_QUESTIONS for words in (question.text, *question.offered)}
)


def missing_translations(questions: Sequence[BaseQuestion], languages: Sequence[str]) -> list[tuple[str, str]]:
    """The questions without a translation into one of a study's further languages: (id, language)."""
    own = [question for question in questions if not TRANSLATED.issuperset((question.text, *question.offered))]
    return [(one.id, language) for language in languages[1:] for one in own if language not in one.translations]
