"""The figures of the desk's overview: progress, participant flow, losses, prescreen, answers per hour, time and pay.

Nothing here reads what listeners chose. Conventions: rates lie in [0, 1], durations are minutes, money is the study's.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import (
    ACTIVE,
    COMPLETED,
    ArrivalCount,
    Assignment,
    AssignmentState,
    PrescreenItem,
    PrescreenResult,
    Response,
)
from server.desk import progress
from server.desk.progress import PairKey, Progress
from server.monitoring import status
from server.payments.hourly_pay import HourlyPay, hourly_pay, quantile
from study.money import sign
from study.prescreen.registry import STEPS

HOURS = 48


@dataclass(frozen=True)
class FunnelStep:
    """How many listeners reached a step, or left at it.

    `rate`: the share of those at the previous step (of a loss: of everyone who could have been lost); None if unknown.
    `width`: of the bar, in [0, 1].
    """

    name: str
    number: int
    rate: float | None
    width: float = 0.0


@dataclass(frozen=True)
class Durations:
    """Minutes from consent to the end, of `n` listeners who completed; 10th percentile, median, 90th percentile."""

    n: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Hour:
    """Number of answers in the hour that starts at `start` (UTC)."""

    start: datetime
    number: int


@dataclass(frozen=True)
class Overview:
    """All figures of the overview."""

    places: dict[str, int]
    answers: Progress
    late: int
    unconfirmed: int
    funnel: list[FunnelStep]
    losses: list[FunnelStep]
    prescreen: dict[str, list[FunnelStep]]
    pairs: dict[PairKey, Progress]
    hours: list[Hour]
    durations: Durations | None
    wages: HourlyPay | None
    floor: float
    reward: float
    sign: str  # of the currency


def overview(session: Session, experiment: Experiment) -> Overview:
    """Compute all figures of the overview."""
    counts = status.count(session)
    listeners = Counter(counts["listeners"])
    triplets = progress.by_triplet(session, experiment)
    pay = experiment.config.pay
    return Overview(
        places=counts["places"],
        answers=progress.total(triplets.values()),
        late=session.scalar(select(func.count()).select_from(Response).where(Response.late)) or 0,
        unconfirmed=counts["verification"].get("unconfirmed", 0),
        funnel=_funnel(session, listeners),
        losses=_losses(session, listeners),
        prescreen=_prescreen(session),
        pairs=progress.by_pair(triplets),
        hours=_hours(session, experiment.clock()),
        durations=_durations(session),
        wages=hourly_pay(session, pay),
        floor=pay.floor_per_hour,
        reward=pay.reward,
        sign=sign(experiment.config.currency),
    )


def count_listening(session: Session) -> int:
    """How many listeners are taking part now."""
    return int(status.count(session)["places"]["held"])


# ------------------------------------------------------------------ the funnel


def _funnel(session: Session, listeners: Counter[str]) -> list[FunnelStep]:
    consented = sum(listeners.values())
    screened = session.scalar(select(func.count()).where(Assignment.screened_at.is_not(None))) or 0
    finished = sum(listeners[state.value] for state in COMPLETED)
    numbers = [
        ("Arrived", _count_arrivals(session)),
        ("Consented", consented),
        ("Passed the prescreen", screened),
        ("Finished", finished),
    ]
    most = max(number for _, number in numbers) or 1
    previous_numbers = [None, *(number for _, number in numbers)]
    return [
        FunnelStep(name, number, share(number, previous), number / most)
        for (name, number), previous in zip(numbers, previous_numbers, strict=False)
    ]


LOSSES = {
    "screened_out": "Failed the prescreen",
    "technical": "Heard no sound",
    "withdrawn": "Withdrew",
    "returned": "Returned the task",
    "expired": "Ran out of time",
}


def _losses(session: Session, listeners: Counter[str]) -> list[FunnelStep]:
    consented = sum(listeners.values())
    turned_away = _count_arrivals(session, "not_let_in")
    damaged = _count_arrivals(session, "damaged_link")
    arrivals = _count_arrivals(session)
    return [
        FunnelStep("Turned away", turned_away, share(turned_away, arrivals)),
        FunnelStep("Damaged link", damaged, share(damaged, arrivals)),
        *(FunnelStep(name, listeners[state], share(listeners[state], consented)) for state, name in LOSSES.items()),
    ]


OUTCOMES = ("Passed at the first attempt", "Passed later", "Failed", "In progress", "Left before the end")


def _prescreen(session: Session) -> dict[str, list[FunnelStep]]:
    """The outcomes of each prescreen step, of those who have started it."""
    item, result = PrescreenItem, PrescreenResult
    unanswered = func.count() - func.count(item.answer)
    started = select(item.kind, item.assignment_id, Assignment.state, unanswered)
    started = started.join(Assignment, item.assignment_id == Assignment.id)
    started = started.group_by(item.kind, item.assignment_id, Assignment.state)
    results = select(result.kind, result.assignment_id, result.attempt).where(result.passed)
    passed = {(kind, assignment): attempt for kind, assignment, attempt in session.execute(results)}
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter, {step: Counter() for step in STEPS})
    for kind, assignment, state, left in session.execute(started):
        outcomes[kind][_outcome(passed.get((kind, assignment)), state, left == 0)] += 1
    return {
        (STEPS[kind].title if kind in STEPS else kind): [
            FunnelStep(name, counts[name], share(counts[name], counts.total())) for name in OUTCOMES
        ]
        for kind, counts in outcomes.items()
        if counts and is_graded(kind)
    }


def is_graded(step: str) -> bool:
    """Whether a listener can fail a step; a step that is no longer installed counts as graded."""
    return step not in STEPS or STEPS[step].graded


def _outcome(passed_at: int | None, state: AssignmentState, answered: bool) -> str:
    if passed_at is not None:
        return "Passed at the first attempt" if passed_at == 1 else "Passed later"
    if answered:
        return "Failed"
    return "In progress" if state in ACTIVE else "Left before the end"


def _count_arrivals(session: Session, shown: str | None = None) -> int:
    """How often the first page was shown, or one version of it (`ArrivalCount.shown`)."""
    query = select(func.sum(ArrivalCount.number))
    return session.scalar(query if shown is None else query.where(ArrivalCount.shown == shown)) or 0


def share(part: int, whole: int | None) -> float | None:
    """The rate of a part; None without a whole, or if the part is larger (not every arrival is counted)."""
    return part / whole if whole and part <= whole else None


# ------------------------------------------------------------------ time


def _hours(session: Session, now: datetime) -> list[Hour]:
    """Answers by hour over the last two days, the current hour last."""
    last = now.replace(minute=0, second=0, microsecond=0)
    first = last - timedelta(hours=HOURS - 1)
    moments = session.scalars(select(Response.answered_at).where(Response.answered_at >= first))
    numbers = Counter(moment.replace(minute=0, second=0, microsecond=0) for moment in moments)
    return [Hour(start, numbers[start]) for start in (first + timedelta(hours=step) for step in range(HOURS))]


def _durations(session: Session) -> Durations | None:
    """How long listeners took who completed the study; None before the first."""
    query = select(Assignment.consented_at, Assignment.ended_at).where(
        progress.counts(), Assignment.ended_at.is_not(None)
    )
    minutes = [minutes_between(start, end) for start, end in session.execute(query) if end is not None]
    if not minutes:
        return None
    median = statistics.median(minutes)
    return Durations(len(minutes), quantile(minutes, 0.1), median, quantile(minutes, 0.9))


def minutes_between(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() / 60
