"""The desk's view of the questions: how often each answer was given.

Answers of listeners who completed the study are counted; shares are of those who answered the question. What
listeners wrote in their own words is counted only as written or not: it is read with the listener who wrote it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import COMPLETED, Answer, Assignment
from server.desk.overview import share
from server.payments.hourly_pay import quantile
from study.questionnaire import BaseQuestion, NumberQuestion, split_answer


@dataclass(frozen=True)
class Count:
    """How many gave one answer; `rate` is of those who answered the question."""

    answer: str
    number: int
    rate: float | None


@dataclass(frozen=True)
class NumberSummary:
    """Quantiles of the numbers given."""

    least: float
    low: float
    median: float
    high: float
    most: float


@dataclass(frozen=True)
class Tally:
    """A question with what was answered; `counts` or `spread` is empty where the type has none."""

    question: BaseQuestion
    answered: int
    skipped: int
    counts: list[Count]
    spread: NumberSummary | None


def tallies(session: Session, experiment: Experiment) -> list[Tally]:
    """Every question of the study, in its order."""
    given: dict[str, Counter[str]] = {}
    query = select(Answer.question, Answer.value, func.count()).join(Assignment, Answer.assignment_id == Assignment.id)
    for name, value, number in session.execute(
        query.where(Assignment.state.in_(COMPLETED)).group_by(Answer.question, Answer.value)
    ):
        given.setdefault(name, Counter())[value] = number
    return [tally(question, given.get(question.id, Counter())) for question in experiment.config.questions]


def tally(question: BaseQuestion, given: Counter[str]) -> Tally:
    """Count the answers to one question: kept answer -> how many gave it."""
    skipped = given.get("", 0)
    answered = given.total() - skipped
    chosen: Counter[str] = Counter()
    for answer, number in given.items():
        if answer:
            chosen.update(dict.fromkeys(split_answer(question, answer), number))
    counts = [Count(one, chosen[one], share(chosen[one], answered)) for one in question.countable]
    return Tally(question, answered, skipped, counts, _spread(given) if isinstance(question, NumberQuestion) else None)


def _spread(given: Counter[str]) -> NumberSummary | None:
    numbers = sorted(float(value) for value in given.elements() if value)
    if not numbers:
        return None
    low, high = quantile(numbers, 0.25), quantile(numbers, 0.75)
    return NumberSummary(numbers[0], low, statistics.median(numbers), high, numbers[-1])
