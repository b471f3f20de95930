"""How many answers each triplet and bin pair has, of those planned.

Nothing here reads what listeners chose. Conventions: an answer is `counted` once its listener has completed the study
and is not unconfirmed, `under_way` while the listener holds a place, `lost` if they left or ran out of time. Only
scored trials count.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Experiment
from server.db.enums import RunVerification
from server.db.models import ACTIVE, COMPLETED, Assignment, AssignmentState, Place, Response
from study.trials import PlannedTrial

TripletKey = tuple[str, int, int, int, int]  # embedder, bin_high, bin_low, triplet, prompt
PairKey = tuple[str, int, int]  # embedder, bin_high, bin_low
Matrix = dict[int, dict[tuple[int, int], "Progress"]]  # prompt -> bin pair -> progress


@dataclass(frozen=True)
class Progress:
    """Numbers of answers."""

    planned: int = 0
    counted: int = 0
    under_way: int = 0
    lost: int = 0

    @property
    def done(self) -> float:
        """The counted share of the planned answers, in [0, 1]."""
        return min(1.0, self.counted / self.planned) if self.planned else 0.0


@dataclass(frozen=True)
class AnswerDistribution:
    """How evenly the counted answers of a bin pair are distributed over its triplets."""

    triplets: int
    complete: int
    fewest: int
    median: float
    most: int


def by_triplet(session: Session, experiment: Experiment) -> dict[TripletKey, Progress]:
    """Progress of every triplet of the schedule."""
    tallies: dict[TripletKey, Counter[str]] = defaultdict(Counter)
    for trials in experiment.plan.lists.values():
        for trial in trials:
            if trial.kind == "scored":
                tallies[_key(trial)]["planned"] += 1
    for number, position, state, has_place, is_counted in session.execute(_answered_trials()):
        trial = experiment.plan.lists[number][position - 1]
        if trial.kind == "scored":
            tallies[_key(trial)][_category(state, has_place, is_counted)] += 1
    return {key: Progress(**tally) for key, tally in sorted(tallies.items())}


def counts() -> ColumnElement[bool]:
    """The condition that a run counts: it is complete, and not unconfirmed."""
    return Assignment.state.in_(COMPLETED) & (Assignment.verification != RunVerification.UNCONFIRMED)


def _answered_trials() -> Any:
    has_place = select(Place.assignment_id).where(Place.assignment_id == Assignment.id).exists()
    query = select(Assignment.list_number, Response.position, Assignment.state, has_place, counts())
    return query.join(Response, Response.assignment_id == Assignment.id)


def _key(trial: PlannedTrial) -> TripletKey:
    return trial.embedder, trial.bin_high, trial.bin_low, trial.triplet, trial.prompt


def _category(state: AssignmentState, has_place: bool, is_counted: bool) -> str:
    if is_counted:
        return "counted"
    return "under_way" if state in {*ACTIVE, *COMPLETED} and has_place else "lost"


def matrices(triplets: dict[TripletKey, Progress]) -> dict[str, Matrix]:
    """Progress by embedder, prompt and bin pair; a prompt has one triplet in each pair."""
    tables: dict[str, Matrix] = defaultdict(lambda: defaultdict(dict))
    for (embedder, high, low, _, prompt), progress in triplets.items():
        row = tables[embedder][prompt]
        row[high, low] = total([row.get((high, low), Progress()), progress])
    return {embedder: dict(sorted(table.items())) for embedder, table in tables.items()}


def by_pair(triplets: dict[TripletKey, Progress]) -> dict[PairKey, Progress]:
    """Progress by embedder and bin pair."""
    return {key: total(group) for key, group in _grouped(triplets).items()}


def distribution(triplets: dict[TripletKey, Progress]) -> dict[PairKey, AnswerDistribution]:
    """How evenly counted answers are distributed over triplets, by embedder and bin pair."""
    return {key: _distribution(group) for key, group in _grouped(triplets).items()}


def _grouped(triplets: dict[TripletKey, Progress]) -> dict[PairKey, list[Progress]]:
    groups: dict[PairKey, list[Progress]] = defaultdict(list)
    for (embedder, high, low, _, _), progress in triplets.items():
        groups[embedder, high, low].append(progress)
    return groups


def _distribution(group: list[Progress]) -> AnswerDistribution:
    numbers = [progress.counted for progress in group]
    complete = sum(progress.counted >= progress.planned for progress in group)
    return AnswerDistribution(len(group), complete, min(numbers), statistics.median(numbers), max(numbers))


def total(parts: Iterable[Progress]) -> Progress:
    """The sum of several."""
    numbers: Counter[str] = Counter()
    for part in parts:
        numbers.update(vars(part))
    return Progress(**numbers)
