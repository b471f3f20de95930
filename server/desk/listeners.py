"""The desk's listeners: one row for each assignment, and all that is kept of one, but for what was chosen."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import Answer, Assignment, Listener, PrescreenResult, Response
from server.desk.overview import is_graded, minutes_between, standing_column
from study.languages import LANGUAGES
from study.trials import PlannedTrial

PAGE = 25


@dataclass(frozen=True)
class ListenerRow:
    """One line of the list."""

    pseudonym: str
    state: str
    prescreen: str
    consented_at: datetime
    minutes: float | None
    answers: int
    trials: int
    late: int
    seconds: float | None  # median of an answer


@dataclass(frozen=True)
class ListenerPage:
    """One page of the list; pages count from 1."""

    rows: list[ListenerRow]
    number: int
    pages: int
    total: int


def listeners(session: Session, experiment: Experiment, state: str, number: int) -> ListenerPage:
    """The latest first; `state` empty: all."""
    standing = standing_column()
    matching = select(Assignment.id) if not state else select(Assignment.id).where(standing == state)
    total = session.scalar(select(func.count()).select_from(matching.subquery())) or 0
    pages = max(1, -(-total // PAGE))
    number = min(number, pages)
    query = select(Assignment, Listener.pseudonym, standing).join(Listener, Assignment.listener_id == Listener.id)
    query = query.where(Assignment.id.in_(matching)).order_by(Assignment.consented_at.desc(), Assignment.id.desc())
    found = session.execute(query.limit(PAGE).offset((number - 1) * PAGE)).all()
    ids = [assignment.id for assignment, _, _ in found]
    given, screened = _responses(session, ids), _prescreens(session, ids)
    rows = [
        _row(experiment, assignment, pseudonym, standing_now, given[assignment.id], screened[assignment.id])
        for assignment, pseudonym, standing_now in found
    ]
    return ListenerPage(rows, number, pages, total)


def _row(
    experiment: Experiment,
    assignment: Assignment,
    pseudonym: str,
    state: str,
    given: list[Response],
    results: list[PrescreenResult],
) -> ListenerRow:
    ended = assignment.ended_at
    return ListenerRow(
        pseudonym=pseudonym,
        state="erased" if assignment.erased_at else str(state),
        prescreen="–" if assignment.erased_at else _prescreen(assignment, results),
        consented_at=assignment.consented_at,
        minutes=minutes_between(assignment.consented_at, ended) if ended else None,
        answers=len(given),
        trials=len(experiment.trials(assignment)),
        late=sum(response.late for response in given),
        seconds=statistics.median(response.response_ms / 1000 for response in given) if given else None,
    )


def _responses(session: Session, ids: list[int]) -> dict[int, list[Response]]:
    found: dict[int, list[Response]] = defaultdict(list)
    query = select(Response).where(Response.assignment_id.in_(ids)).order_by(Response.position)
    for response in session.scalars(query):
        found[response.assignment_id].append(response)
    return found


def _prescreens(session: Session, ids: list[int]) -> dict[int, list[PrescreenResult]]:
    """The attempts at graded steps that are over, in their order."""
    found: dict[int, list[PrescreenResult]] = defaultdict(list)
    query = select(PrescreenResult).where(PrescreenResult.assignment_id.in_(ids))
    for result in session.scalars(query.order_by(PrescreenResult.id)):
        if is_graded(result.kind):
            found[result.assignment_id].append(result)
    return found


def _prescreen(assignment: Assignment, results: list[PrescreenResult]) -> str:
    outcome = "passed" if assignment.screened_at else ("failed" if assignment.ended_at else "open")
    if not results:
        return "none" if assignment.screened_at else outcome
    last = {result.kind: result for result in results}
    told = [f"{kind} {result.correct} of {result.asked}{_tries(result)}" for kind, result in last.items()]
    return f"{outcome}: {', '.join(told)}"


def _tries(result: PrescreenResult) -> str:
    return f" at attempt {result.attempt}" if result.attempt > 1 else ""


# ------------------------------------------------------------------ one listener


@dataclass(frozen=True)
class ListenerTrial:
    """One answered trial, but for the choice; what is listed by clip is in the order X, A, B."""

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
    """All that is kept of one listener."""

    row: ListenerRow
    times: list[tuple[str, datetime]]
    attempts: list[PrescreenResult]
    trials: list[ListenerTrial]
    answers: list[tuple[str, str]]
    browser: list[tuple[str, str]]


def listener(session: Session, experiment: Experiment, pseudonym: str) -> ListenerDetail | None:
    """One listener; None where there is none of that pseudonym."""
    query = select(Assignment, standing_column()).join(Listener, Assignment.listener_id == Listener.id)
    found = session.execute(query.where(Listener.pseudonym == pseudonym)).one_or_none()
    if found is None:
        return None
    assignment, state = found
    given, results = _responses(session, [assignment.id])[assignment.id], _prescreens(session, [assignment.id])
    return ListenerDetail(
        row=_row(experiment, assignment, pseudonym, state, given, results[assignment.id]),
        times=_times(assignment),
        attempts=results[assignment.id],
        trials=[_trial(experiment, assignment, response) for response in given],
        answers=_answers(session, experiment, assignment),
        browser=_browser(assignment.language, given),
    )


def _times(assignment: Assignment) -> list[tuple[str, datetime]]:
    times = [
        ("Consented", assignment.consented_at),
        ("Passed the prescreen", assignment.screened_at),
        ("Began to listen", assignment.listening_at),
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


def _browser(language: str, given: list[Response]) -> list[tuple[str, str]]:
    """What the browser told of itself, each value once."""
    told = {
        "Language": [LANGUAGES[language].name if language in LANGUAGES else language],
        "Browser": [response.agent_class or "" for response in given],
        "Sample rate": [f"{response.sample_rate} Hz" for response in given if response.sample_rate],
        "Output latency": [f"{ms:.0f} ms" for response in given if (ms := response.output_latency_ms) is not None],
    }
    shown = {name: ", ".join(dict.fromkeys(value for value in values if value)) for name, values in told.items()}
    return [(name, text) for name, text in shown.items() if text]


def _answers(session: Session, experiment: Experiment, assignment: Assignment) -> list[tuple[str, str]]:
    query = select(Answer.question, Answer.value).where(Answer.assignment_id == assignment.id)
    given = {row.question: row.value for row in session.execute(query)}
    return [(question.text, given[question.id]) for question in experiment.config.questions if given.get(question.id)]
