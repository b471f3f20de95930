"""The desk's listeners: one row per assignment, and everything stored about one, except what they chose."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import (
    ACTIVE,
    Answer,
    Assignment,
    AssignmentState,
    Listener,
    Place,
    PrescreenResult,
    Response,
)
from server.desk.overview import is_graded, minutes_between
from study.languages import LANGUAGES
from study.trials import PlannedTrial

PAGE_ROWS = 25


@dataclass(frozen=True)
class ListenerRow:
    """One row of the list; `minutes` is from consent to the end, `seconds` the median answer time."""

    pseudonym: str
    state: str
    verification: str
    prescreen: str
    consented_at: datetime
    minutes: float | None
    answers: int
    trials: int
    late: int
    seconds: float | None


@dataclass(frozen=True)
class ListenerPage:
    """One page of the list; pages count from 1."""

    rows: list[ListenerRow]
    number: int
    pages: int
    total: int


def listeners(session: Session, experiment: Experiment, state: str, number: int) -> ListenerPage:
    """One page of the list, the latest first.

    Args:
        state: show only these; "" shows all.
        number: of the page, from 1; a later one than the last is the last.
    """
    current_state = _current_state()
    matching = select(Assignment.id) if not state else select(Assignment.id).where(current_state == state)
    total = session.scalar(select(func.count()).select_from(matching.subquery())) or 0
    pages = max(1, -(-total // PAGE_ROWS))
    number = min(number, pages)
    query = select(Assignment, Listener.pseudonym, current_state).join(Listener, Assignment.listener_id == Listener.id)
    query = query.where(Assignment.id.in_(matching)).order_by(Assignment.consented_at.desc(), Assignment.id.desc())
    found = session.execute(query.limit(PAGE_ROWS).offset((number - 1) * PAGE_ROWS)).all()
    ids = [assignment.id for assignment, _, _ in found]
    responses, results = _responses(session, ids), _prescreen_results(session, ids)
    rows = [
        _row(experiment, assignment, pseudonym, state_now, responses[assignment.id], results[assignment.id])
        for assignment, pseudonym, state_now in found
    ]
    return ListenerPage(rows, number, pages, total)


def _row(
    experiment: Experiment,
    assignment: Assignment,
    pseudonym: str,
    state: str,
    responses: list[Response],
    results: list[PrescreenResult],
) -> ListenerRow:
    ended = assignment.ended_at
    return ListenerRow(
        pseudonym=pseudonym,
        state="erased" if assignment.erased_at else str(state),
        verification=assignment.verification.value,
        prescreen="–" if assignment.erased_at else _prescreen_summary(assignment, results),
        consented_at=assignment.consented_at,
        minutes=minutes_between(assignment.consented_at, ended) if ended else None,
        answers=len(responses),
        trials=len(experiment.trials(assignment)),
        late=sum(response.late for response in responses),
        seconds=statistics.median(response.response_ms / 1000 for response in responses) if responses else None,
    )


def _responses(session: Session, ids: list[int]) -> dict[int, list[Response]]:
    found: dict[int, list[Response]] = defaultdict(list)
    query = select(Response).where(Response.assignment_id.in_(ids)).order_by(Response.position)
    for response in session.scalars(query):
        found[response.assignment_id].append(response)
    return found


def _prescreen_results(session: Session, ids: list[int]) -> dict[int, list[PrescreenResult]]:
    """The completed attempts at graded steps, in order."""
    found: dict[int, list[PrescreenResult]] = defaultdict(list)
    query = select(PrescreenResult).where(PrescreenResult.assignment_id.in_(ids))
    for result in session.scalars(query.order_by(PrescreenResult.id)):
        if is_graded(result.kind):
            found[result.assignment_id].append(result)
    return found


def _prescreen_summary(assignment: Assignment, results: list[PrescreenResult]) -> str:
    outcome = "passed" if assignment.screened_at else ("failed" if assignment.ended_at else "in progress")
    if not results:
        return "none" if assignment.screened_at else outcome
    last = {result.kind: result for result in results}
    scores = [f"{kind} {result.correct} of {result.asked}{_attempt(result)}" for kind, result in last.items()]
    return f"{outcome}: {', '.join(scores)}"


def _attempt(result: PrescreenResult) -> str:
    return f" at attempt {result.attempt}" if result.attempt > 1 else ""


def _current_state() -> Any:
    """The state now (`server.assignments.steps.effective_state`), in SQL: an active run without a place has expired."""
    has_place = select(Place.assignment_id).where(Place.assignment_id == Assignment.id).exists()
    expired = Assignment.state.in_(ACTIVE) & ~has_place
    return case((expired, AssignmentState.EXPIRED.value), else_=Assignment.state)


# ------------------------------------------------------------------ one listener


@dataclass(frozen=True)
class ListenerTrial:
    """One answered trial without the choice; values by clip are in the order X, A, B."""

    trial: PlannedTrial
    answered_at: datetime
    seconds: float
    late: bool
    plays: tuple[int, int, int]
    heard_seconds: tuple[float | None, float | None, float | None]
    play_order: str | None
    focus_losses: int | None
    confidence: int | None


@dataclass(frozen=True)
class ListenerDetail:
    """Everything stored about one listener."""

    row: ListenerRow
    times: list[tuple[str, datetime]]
    attempts: list[PrescreenResult]
    trials: list[ListenerTrial]
    answers: list[tuple[str, str]]
    browser: list[tuple[str, str]]


def listener(session: Session, experiment: Experiment, pseudonym: str) -> ListenerDetail | None:
    """One listener; None if the pseudonym is unknown."""
    query = select(Assignment, _current_state()).join(Listener, Assignment.listener_id == Listener.id)
    found = session.execute(query.where(Listener.pseudonym == pseudonym)).one_or_none()
    if found is None:
        return None
    assignment, state = found
    responses = _responses(session, [assignment.id])[assignment.id]
    results = _prescreen_results(session, [assignment.id])[assignment.id]
    return ListenerDetail(
        row=_row(experiment, assignment, pseudonym, state, responses, results),
        times=_times(assignment),
        attempts=results,
        trials=[_trial(experiment, assignment, response) for response in responses],
        answers=_answers(session, experiment, assignment),
        browser=_browser(assignment.language, responses),
    )


def _times(assignment: Assignment) -> list[tuple[str, datetime]]:
    times = [
        ("Consented", assignment.consented_at),
        ("Passed the prescreen", assignment.screened_at),
        ("Started listening", assignment.listening_at),
        ("Ended", assignment.ended_at),
    ]
    return [(name, moment) for name, moment in times if moment is not None]


def _trial(experiment: Experiment, assignment: Assignment, response: Response) -> ListenerTrial:
    return ListenerTrial(
        trial=experiment.trial(assignment, response.position),
        answered_at=response.answered_at,
        seconds=response.response_ms / 1000,
        late=response.late,
        plays=(response.plays_x, response.plays_a, response.plays_b),
        heard_seconds=(response.seconds_x, response.seconds_a, response.seconds_b),
        play_order=response.play_order,
        focus_losses=response.focus_losses,
        confidence=response.confidence,
    )


def _browser(language: str, responses: list[Response]) -> list[tuple[str, str]]:
    """The values that the browser reported, each once."""
    reported = {
        "Language": [LANGUAGES[language].name if language in LANGUAGES else language],
        "Browser": [response.agent_class or "" for response in responses],
        "Sample rate": [f"{response.sample_rate} Hz" for response in responses if response.sample_rate],
        "Output latency": [f"{ms:.0f} ms" for response in responses if (ms := response.output_latency_ms) is not None],
    }
    texts = {name: ", ".join(dict.fromkeys(value for value in values if value)) for name, values in reported.items()}
    return [(name, text) for name, text in texts.items() if text]


def _answers(session: Session, experiment: Experiment, assignment: Assignment) -> list[tuple[str, str]]:
    query = select(Answer.question, Answer.value).where(Answer.assignment_id == assignment.id)
    answers = {row.question: row.value for row in session.execute(query)}
    return [(one.text, answers[one.id]) for one in experiment.config.questions if answers.get(one.id)]
