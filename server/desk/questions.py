"""The questions at the desk: how often each answer was given.

Answers of listeners who completed the study are counted; shares are of those who answered the question. Free text is
only counted as given or not: it is shown with the listener who wrote it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import Answer, Assignment
from server.desk.overview import share
from server.desk.progress import counts
from server.payments.hourly_pay import quantile
from study.questions.base import BaseQuestion


@dataclass(frozen=True)
class Count:
    """How many listeners gave one answer; `rate` is of those who answered the question."""

    answer: str
    number: int
    rate: float | None


@dataclass(frozen=True)
class NumberSummary:
    """Quantiles of the answers to a numeric question."""

    least: float
    low: float
    median: float
    high: float
    most: float


@dataclass(frozen=True)
class Tally:
    """A question and its answers; `counts` or `spread` is empty if the question's type has none."""

    question: BaseQuestion
    answered: int
    skipped: int
    counts: list[Count]
    spread: NumberSummary | None


def tallies(session: Session, experiment: Experiment) -> list[Tally]:
    """Every question of the study, in its order."""
    given: dict[str, Counter[str]] = {}
    query = select(Answer.question, Answer.value, func.count()).join(Assignment, Answer.assignment_id == Assignment.id)
    for name, value, number in session.execute(query.where(counts()).group_by(Answer.question, Answer.value)):
        given.setdefault(name, Counter())[value] = number
    return [tally(question, given.get(question.id, Counter())) for question in experiment.config.questions]


def tally(question: BaseQuestion, given: Counter[str]) -> Tally:
    """Count the answers to one question.

    Args:
        given: stored answer -> how many listeners gave it.
    """
    skipped = given.get("", 0)
    answered = given.total() - skipped
    chosen: Counter[str] = Counter()
    for answer, number in given.items():
        if answer:
            chosen.update(dict.fromkeys(question.split(answer), number))
    counts = [Count(question.label(one), chosen[one], share(chosen[one], answered)) for one in question.countable]
    return Tally(question, answered, skipped, counts, _spread(given) if question.numeric else None)


def _spread(given: Counter[str]) -> NumberSummary | None:
    numbers = sorted(float(value) for value in given.elements() if value)
    if not numbers:
        return None
    low, high = quantile(numbers, 0.25), quantile(numbers, 0.75)
    return NumberSummary(numbers[0], low, statistics.median(numbers), high, numbers[-1])
