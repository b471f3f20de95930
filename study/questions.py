"""Questions: what a listener is asked after the trials, and which answers are taken.

A type of question is a check here (raw text from the form to the answer that is kept) and a template of the
same name under server/templates/questions. An answer left empty is kept as the empty string.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence

from study.config import QuestionConfig

TEXT_LIMIT = 2000
SCALE_POINTS = 5


class AnswerError(ValueError):
    """An answer cannot be taken; the message is one plain sentence for the listener."""


def _check_single(question: QuestionConfig, raw: str) -> str:
    if raw not in question.options:
        raise AnswerError("Please choose one of the answers offered.")
    return raw


def _check_scale(question: QuestionConfig, raw: str) -> str:
    if raw not in {str(point) for point in range(1, SCALE_POINTS + 1)}:
        raise AnswerError(f"Please choose a point from 1 to {SCALE_POINTS}.")
    return raw


def _check_text(question: QuestionConfig, raw: str) -> str:
    if len(raw) > TEXT_LIMIT:
        raise AnswerError(f"Please keep this answer below {TEXT_LIMIT} characters.")
    return raw


QUESTION_TYPES: dict[str, Callable[[QuestionConfig, str], str]] = {
    "single": _check_single,
    "text": _check_text,
    "scale": _check_scale,
}


def check_answer(question: QuestionConfig, raw: str | None) -> str:
    """The answer as it is kept.

    Raises:
        AnswerError: where it is missing though required, too long, or none of those offered.
    """
    text = clean_text(raw or "")
    if not text:
        if question.required:
            raise AnswerError("Please answer this question.")
        return ""
    return QUESTION_TYPES[question.type](question, text)


def check_answers(
    questions: Sequence[QuestionConfig], form: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Check fields named q_<id>: (id -> answer, id -> what is wrong); nothing is wrong where the second is empty."""
    answers: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for question in questions:
        try:
            answers[question.id] = check_answer(question, form.get(f"q_{question.id}"))
        except AnswerError as error:
            wrong[question.id] = str(error)
    return answers, wrong


def clean_text(raw: str) -> str:
    """Strip, with line ends as \\n and without control characters (PostgreSQL takes no NUL)."""
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs")).strip()
