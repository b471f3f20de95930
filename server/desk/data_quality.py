"""The desk's data quality: a score for every run, with its components. It leaves nobody out, and pay ignores it.

It uses answers to scored trials only as sides, never whether they agreed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import Answer, Assignment, Listener, Response
from study.data_quality import QualityComponent, QualityCounts, components, order_agrees, score
from study.trials import PlannedTrial

PAGE_ROWS = 25


@dataclass(frozen=True)
class QualityRow:
    """One run; `seconds` is the median time of an answer by the server's clock, `plays` the mean number of plays."""

    pseudonym: str
    state: str
    score: int | None
    components: Sequence[QualityComponent]
    answers: int
    seconds: float | None
    plays: float
    page_left: int


@dataclass(frozen=True)
class QualityPage:
    """One page of the list, the lowest scores first; pages count from 1."""

    rows: list[QualityRow]
    number: int
    pages: int
    total: int


def data_quality(session: Session, experiment: Experiment, number: int) -> QualityPage:
    """One page of all runs with an answer."""
    answered: dict[int, list[Row[Any]]] = defaultdict(list)
    for row in session.execute(_responses()):
        answered[row.assignment_id].append(row)
    attention = _attention(session, experiment)
    query = select(Assignment.id, Listener.pseudonym, Assignment.state, Assignment.list_number).join(
        Assignment.listener
    )
    rows = [
        _row(run, answered[run.id], experiment.plan.lists[run.list_number], attention.get(run.id, (0, 0)))
        for run in session.execute(query.order_by(Assignment.id))
        if run.id in answered
    ]
    rows.sort(key=lambda row: (row.score is None, row.score))
    pages = max(1, -(-len(rows) // PAGE_ROWS))
    number = min(number, pages)
    return QualityPage(rows[(number - 1) * PAGE_ROWS : number * PAGE_ROWS], number, pages, len(rows))


def _responses() -> Any:
    columns = (
        Response.assignment_id, Response.position, Response.choice, Response.response_ms, Response.elapsed_s,
        Response.doubts, Response.plays_x, Response.plays_a, Response.plays_b, Response.play_order,
        Response.focus_losses,
    )  # fmt: skip
    return select(*columns).order_by(Response.assignment_id, Response.position)


def _attention(session: Session, experiment: Experiment) -> dict[int, tuple[int, int]]:
    """By run, the attention checks that were answered, and those passed."""
    questions = {question.id: question for question in experiment.config.questions}
    found: dict[int, tuple[int, int]] = {}
    for run, name, value in session.execute(select(Answer.assignment_id, Answer.question, Answer.value)):
        passed = questions[name].is_passed(value) if name in questions else None
        if passed is not None:
            asked, so_far = found.get(run, (0, 0))
            found[run] = (asked + 1, so_far + passed)
    return found


def _row(run: Any, answers: list[Row[Any]], trials: list[PlannedTrial], attention: tuple[int, int]) -> QualityRow:
    found = components(_counts(answers, trials, attention))
    timed = [row.elapsed_s if row.elapsed_s is not None else row.response_ms / 1000 for row in answers]
    return QualityRow(
        pseudonym=run.pseudonym,
        state=run.state,
        score=score(found),
        components=found,
        answers=len(answers),
        seconds=median(timed),
        plays=sum(row.plays_x + row.plays_a + row.plays_b for row in answers) / (3 * len(answers)),
        page_left=sum(row.focus_losses or 0 for row in answers),
    )


def _counts(answers: list[Row[Any]], trials: list[PlannedTrial], attention: tuple[int, int]) -> QualityCounts:
    played = [(row, trials[row.position - 1]) for row in answers]
    agreed = {row.position: row.choice == trial.high_side for row, trial in played}
    first = {_triplet(trial): agreed[row.position] for row, trial in played if trial.kind == "scored"}
    catch = [agreed[row.position] for row, trial in played if trial.kind == "catch"]
    repeats = [
        agreed[row.position] == first[_triplet(trial)]
        for row, trial in played
        if trial.kind == "repeat" and _triplet(trial) in first
    ]
    plays = [(row.plays_x, row.plays_a, row.plays_b) for row in answers]
    timed = [not row.doubts for row in answers if row.elapsed_s is not None]
    ordered = [order_agrees(each, row.play_order) for row, each in zip(answers, plays, strict=True) if row.play_order]
    return QualityCounts(
        answers=len(answers),
        chose_a=sum(row.choice == "A" for row in answers),
        catch=(len(catch), sum(catch)),
        repeats=(len(repeats), sum(repeats)),
        attention=attention,
        times=(len(timed), sum(timed)),
        plays=(len(plays), sum(min(each) >= 1 for each in plays)),
        telemetry=(len(ordered), sum(ordered)),
    )


def _triplet(trial: PlannedTrial) -> tuple[str, int, int, int]:
    return trial.embedder, trial.prompt, trial.clip_high, trial.clip_low
