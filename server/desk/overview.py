"""The desk's figures: how far a study is, whom it lost where, how long it takes and what it pays.

Nothing here reads what listeners chose; agreement is in `server.desk.agreement` and is asked for by itself.
Conventions: an answer is `counted` once its listener has completed the study, `under_way` while they hold a place,
`lost` where they left or ran out of time; rates lie in [0, 1]; durations are minutes, money is US dollars.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.models import (
    ACTIVE,
    COMPLETED,
    ArrivalCount,
    Assignment,
    AssignmentState,
    Place,
    PrescreenItem,
    PrescreenResult,
    Response,
)
from server.monitoring import status
from server.payments.hourly_pay import HourlyPay, hourly_pay, quantile
from study.prescreen.registry import STEPS

HOURS = 48


@dataclass(frozen=True)
class Progress:
    """Answers to something that `planned` are wanted of."""

    planned: int = 0
    counted: int = 0
    under_way: int = 0
    lost: int = 0

    @property
    def done(self) -> float:
        return share(self.counted, self.planned) or 0.0


@dataclass(frozen=True)
class FunnelStep:
    """How many came to a step; `rate` is of those one step before, None where that cannot be said."""

    name: str
    number: int
    rate: float | None
    width: float


@dataclass(frozen=True)
class Durations:
    """Minutes from consent to the end of those who completed."""

    n: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Hour:
    """Answers saved in the hour that begins at `start` (UTC)."""

    start: datetime
    number: int


@dataclass(frozen=True)
class Overview:
    """Everything on the overview."""

    places: dict[str, int]
    answers: Progress
    late: int
    funnel: list[FunnelStep]
    losses: list[FunnelStep]
    screening: dict[str, list[FunnelStep]]
    pairs: dict[tuple[str, int, int], Progress]
    hours: list[Hour]
    durations: Durations | None
    wages: HourlyPay | None
    floor: float
    reward: float


def overview(session: Session, experiment: Experiment) -> Overview:
    """Count everything for the overview."""
    counted = status.count(session)
    listeners = Counter(counted["listeners"])
    progress = answers(session, experiment)
    pay = experiment.config.pay
    return Overview(
        places=counted["places"],
        answers=_total(progress.values()),
        late=session.scalar(select(func.count()).select_from(Response).where(Response.late)) or 0,
        funnel=_funnel(session, listeners),
        losses=_losses(session, listeners),
        screening=_screening(session),
        pairs=by_pair(progress),
        hours=hours(session, experiment.clock()),
        durations=durations(session),
        wages=hourly_pay(session, pay),
        floor=pay.floor_usd_per_hour,
        reward=pay.reward_usd,
    )


def listening(session: Session) -> int:
    """How many listeners are in now."""
    return int(status.count(session)["places"]["held"])


# ------------------------------------------------------------------ answers

TripletKey = tuple[str, int, int, int, int]  # embedder, bin_high, bin_low, triplet, prompt


def answers(session: Session, experiment: Experiment) -> dict[TripletKey, Progress]:
    """Progress of every triplet of the schedule, over scored trials."""
    tallies: dict[TripletKey, Counter[str]] = defaultdict(Counter)
    for trials in experiment.plan.lists.values():
        for trial in trials:
            if trial.kind == "scored":
                tallies[_key(trial)]["planned"] += 1
    for number, position, state, has_place in session.execute(_answered()):
        trial = experiment.plan.lists[number][position - 1]
        if trial.kind == "scored":
            tallies[_key(trial)][_standing(state, has_place)] += 1
    return {key: Progress(**tally) for key, tally in sorted(tallies.items())}


def _answered() -> Any:
    held = select(Place.assignment_id).where(Place.assignment_id == Assignment.id).exists()
    query = select(Assignment.list_number, Response.position, Assignment.state, held)
    return query.join(Response, Response.assignment_id == Assignment.id)


def _key(trial: Any) -> TripletKey:
    return trial.embedder, trial.bin_high, trial.bin_low, trial.triplet, trial.prompt


def _standing(state: AssignmentState, has_place: bool) -> str:
    if state in COMPLETED:
        return "counted"
    return "under_way" if state in ACTIVE and has_place else "lost"


Matrix = dict[int, dict[tuple[int, int], Progress]]  # prompt -> bin pair -> progress


def matrices(progress: dict[TripletKey, Progress]) -> dict[str, Matrix]:
    """The same by embedder, prompt and bin pair; a prompt has one triplet in each pair."""
    tables: dict[str, Matrix] = defaultdict(lambda: defaultdict(dict))
    for (embedder, high, low, _, prompt), one in progress.items():
        row = tables[embedder][prompt]
        row[high, low] = _total([row.get((high, low), Progress()), one])
    return {embedder: dict(sorted(table.items())) for embedder, table in tables.items()}


@dataclass(frozen=True)
class Quartiles:
    """How evenly the counted answers to a bin pair's triplets are spread."""

    triplets: int
    least: int
    median: float
    most: int
    complete: int


def spread(progress: dict[TripletKey, Progress]) -> dict[tuple[str, int, int], Quartiles]:
    """The spread of counted answers over triplets, by embedder and bin pair."""
    groups: dict[tuple[str, int, int], list[Progress]] = defaultdict(list)
    for (embedder, high, low, _, _), one in progress.items():
        groups[embedder, high, low].append(one)
    return {key: _spread(group) for key, group in groups.items()}


def _spread(group: list[Progress]) -> Quartiles:
    numbers = [one.counted for one in group]
    complete = sum(one.counted >= one.planned for one in group)
    return Quartiles(len(group), min(numbers), statistics.median(numbers), max(numbers), complete)


def by_pair(progress: dict[TripletKey, Progress]) -> dict[tuple[str, int, int], Progress]:
    """The same by embedder and bin pair."""
    groups: dict[tuple[str, int, int], list[Progress]] = defaultdict(list)
    for (embedder, high, low, _, _), one in progress.items():
        groups[embedder, high, low].append(one)
    return {key: _total(group) for key, group in groups.items()}


def _total(many: Iterable[Progress]) -> Progress:
    total: Counter[str] = Counter()
    for one in many:
        total.update(vars(one))
    return Progress(**total)


# ------------------------------------------------------------------ the funnel


def _funnel(session: Session, listeners: Counter[str]) -> list[FunnelStep]:
    consented = sum(listeners.values())
    screened = session.scalar(select(func.count()).where(Assignment.screened_at.is_not(None))) or 0
    finished = sum(listeners[state.value] for state in COMPLETED)
    numbers = [("Arrived", arrived(session)), ("Consented", consented), ("Screened", screened), ("Finished", finished)]
    most = max(number for _, number in numbers) or 1
    before = [None, *(number for _, number in numbers)]
    return [
        FunnelStep(name, number, share(number, previous), number / most)
        for (name, number), previous in zip(numbers, before, strict=False)
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
    away = arrived(session, "not_let_in")
    found = [FunnelStep("Not let in", away, share(away, arrived(session)), 0.0)]
    for state, name in LOSSES.items():
        found.append(FunnelStep(name, listeners[state], share(listeners[state], consented), 0.0))
    return found


SCREENED = ("Passed at the first attempt", "Passed later", "Failed", "Not yet through", "Left before")


def _screening(session: Session) -> dict[str, list[FunnelStep]]:
    """How each step of the prescreen went for those who have begun it; shares are of them."""
    item, result = PrescreenItem, PrescreenResult
    left = func.count() - func.count(item.answer)
    begun = select(item.kind, item.assignment_id, Assignment.state, left)
    begun = begun.join(Assignment, item.assignment_id == Assignment.id)
    begun = begun.group_by(item.kind, item.assignment_id, Assignment.state)
    results = select(result.kind, result.assignment_id, result.attempt).where(result.passed)
    passed = {(kind, assignment): attempt for kind, assignment, attempt in session.execute(results)}
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter, {step: Counter() for step in STEPS})
    for kind, assignment, state, unanswered in session.execute(begun):
        outcomes[kind][_outcome(passed.get((kind, assignment)), state, unanswered == 0)] += 1
    return {
        (STEPS[kind].title if kind in STEPS else kind): [
            FunnelStep(name, found[name], share(found[name], found.total()), 0.0) for name in SCREENED
        ]
        for kind, found in outcomes.items()
        if found and is_graded(kind)
    }


def is_graded(step: str) -> bool:
    """Whether a listener can fail a step; a step that is no longer installed counts as graded."""
    return step not in STEPS or STEPS[step].graded


def _outcome(passed_at: int | None, state: AssignmentState, over: bool) -> str:
    if passed_at is not None:
        return "Passed at the first attempt" if passed_at == 1 else "Passed later"
    if over:
        return "Failed"
    return "Not yet through" if state in ACTIVE else "Left before"


def arrived(session: Session, shown: str | None = None) -> int:
    """How often somebody arrived, or was shown one thing."""
    query = select(func.sum(ArrivalCount.number))
    return session.scalar(query if shown is None else query.where(ArrivalCount.shown == shown)) or 0


def share(part: int, whole: int | None) -> float | None:
    """The rate, or None where there is none (nothing to share, or more arrived than were counted)."""
    return part / whole if whole and part <= whole else None


# ------------------------------------------------------------------ time


def hours(session: Session, now: datetime) -> list[Hour]:
    """Answers by hour over the last two days, the present hour last."""
    last = now.replace(minute=0, second=0, microsecond=0)
    first = last - timedelta(hours=HOURS - 1)
    moments = session.scalars(select(Response.answered_at).where(Response.answered_at >= first))
    numbers = Counter(moment.replace(minute=0, second=0, microsecond=0) for moment in moments)
    return [Hour(start, numbers[start]) for start in (first + timedelta(hours=step) for step in range(HOURS))]


def durations(session: Session) -> Durations | None:
    """How long those who completed took; None before the first."""
    query = select(Assignment.consented_at, Assignment.ended_at).where(
        Assignment.state.in_(COMPLETED), Assignment.ended_at.is_not(None)
    )
    minutes = [minutes_between(begun, ended) for begun, ended in session.execute(query) if ended is not None]
    if not minutes:
        return None
    median = statistics.median(minutes)
    return Durations(len(minutes), quantile(minutes, 0.1), median, quantile(minutes, 0.9))


def minutes_between(begun: datetime, ended: datetime) -> float:
    return (ended - begun).total_seconds() / 60


# ------------------------------------------------------------------ states, as SQL


def standing_column() -> Any:
    """The state now (server.assignments.steps.effective_state): an active run without a place has expired."""
    held = select(Place.assignment_id).where(Place.assignment_id == Assignment.id).exists()
    return case((Assignment.state.in_(ACTIVE) & ~held, AssignmentState.EXPIRED.value), else_=Assignment.state)
