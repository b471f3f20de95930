"""The places of a study: one for each trial list, leased to a listener or filled.

A place is held while the listener continues; each step renews the lease. When the lease has expired, the place may go
to another listener. A filled place stays filled. A finished run that the marketplace has not listed fills none
(server.recruiting.confirmation).
"""

from __future__ import annotations

import enum
import secrets
from typing import Any, cast

import numpy as np
from sqlalchemy import CursorResult, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from embeddings.errors import RootnoteError
from server.assignments import queries
from server.assignments.experiment import Experiment
from server.db.enums import RunVerification
from server.db.models import Assignment, Place, StudyRecord
from server.db.upsert import insert
from study.config import StudyConfig


class Availability(enum.Enum):
    """Whether there is a place for a person who arrives now."""

    OPEN = "open"
    HELD = "held"
    COMPLETE = "complete"


def sync_places(session: Session, experiment: Experiment) -> None:
    """Create a place for every trial list, if the database has none yet.

    Raises:
        RootnoteError: if the database already holds the places of another schedule.
    """
    plan = experiment.plan
    if not _create_study_record(session, experiment):
        record = session.get_one(StudyRecord, 1)
        if record.schedule != plan.schedule_fingerprint:
            raise RootnoteError(
                f"the database belongs to another schedule (of the study '{record.name}'); restore the study folder "
                "it was started with, or set ROOTNOTE_DATABASE_URL to a new database and run `rootnote server migrate`."
            )
        if record.rehearsal and not experiment.rehearsal:
            record.rehearsal = False  # real listeners may come from now on: no one else states the time any more
        return
    numbers = sorted(plan.lists)
    turns = seeded_turns(experiment.config, len(numbers)) if experiment.rehearsal else _secret_turns(len(numbers))
    session.add_all(Place(list_number=n, turn=t) for n, t in zip(numbers, turns, strict=True))
    session.flush()


def seeded_turns(config: StudyConfig, number: int) -> list[int]:
    """The turns of a rehearsal, by list: the same every time. Early real studies also used these."""
    return [int(turn) for turn in np.random.default_rng(config.study.seed).permutation(number)]


def _secret_turns(number: int) -> list[int]:
    """Turns in a secret random order, by list.

    Published answers show their list, which would otherwise reveal who came when. Shuffling also ensures that, with
    several embedders, none is heard only by the first listeners.
    """
    turns = list(range(number))
    secrets.SystemRandom().shuffle(turns)
    return turns


def _create_study_record(session: Session, experiment: Experiment) -> bool:
    """Insert the study's row; False if it exists. If several servers start, one inserts and the others wait."""
    row = insert(session, StudyRecord).values(
        id=1,
        name=experiment.config.study.name,
        schedule=experiment.plan.schedule_fingerprint,
        created_at=experiment.clock(),
        rehearsal=experiment.rehearsal,
    )
    return session.scalar(row.on_conflict_do_nothing().returning(StudyRecord.id)) is not None


def availability(session: Session, experiment: Experiment, *, confirmed: bool = False) -> Availability:
    """Whether a place is free now; `confirmed`: for a person who can prove that the marketplace lists them."""
    free = claimable(experiment) | held_unconfirmed() if confirmed else claimable(experiment)
    if session.scalar(select(Place.id).where(free).limit(1)) is not None:
        return Availability.OPEN
    unfilled = session.scalar(select(Place.id).where(~Place.filled).limit(1))
    return Availability.COMPLETE if unfilled is None else Availability.HELD


def claimable(experiment: Experiment, place: type[Place] = Place) -> Any:
    """The condition that a place is free, or that its lease has expired."""
    return and_(~place.filled, or_(place.assignment_id.is_(None), place.expires_at <= experiment.clock()))


def held_unconfirmed(place: type[Place] = Place) -> Any:
    """The condition that a place is held by a run that no marketplace has listed."""
    unconfirmed = select(Assignment.id).where(Assignment.verification == RunVerification.UNCONFIRMED)
    return and_(~place.filled, place.assignment_id.in_(unconfirmed))


def count_unconfirmed(session: Session, experiment: Experiment) -> int:
    """How many places unconfirmed runs hold now."""
    held = select(func.count()).select_from(Place).where(held_unconfirmed(), Place.expires_at > experiment.clock())
    return session.scalar(held) or 0


def claim_place(session: Session, experiment: Experiment, assignment: Assignment) -> int | None:
    """Reserve a place; returns its list number, None if none is free.

    Never-held places come first, then those whose lease has expired, and for a confirmed run then those that
    unconfirmed runs hold, the one that has waited longest first: an invented run keeps no real listener out.
    """
    free = aliased(Place)
    found = _claim(session, experiment, assignment, claimable(experiment, free), free, free.turn)
    if found is None and assignment.verification is RunVerification.CONFIRMED:
        since = select(Assignment.consented_at).where(Assignment.id == free.assignment_id).scalar_subquery()
        found = _claim(session, experiment, assignment, held_unconfirmed(free), free, since)
    return found


def _claim(
    session: Session, experiment: Experiment, assignment: Assignment, condition: Any, free: Any, order: Any
) -> int | None:
    """Reserve the first place that meets a condition, in one statement."""
    chosen = (
        select(free.id)
        .where(condition)
        .order_by(free.assignment_id.is_not(None), order)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    claimed = (
        update(Place)
        .where(Place.id == chosen)
        .values(lease_values(experiment, assignment))
        .returning(Place.list_number)
    )
    return session.scalar(claimed.execution_options(synchronize_session=False))


def renew_lease(session: Session, experiment: Experiment, assignment: Assignment) -> bool:
    """Renew the lease; False if the place has gone to another listener."""
    until = experiment.clock() + experiment.lease
    return queries.run(session, queries.RENEW_LEASE, assignment=assignment.id, until=until).rowcount == 1


def release_place(session: Session, assignment: Assignment) -> None:
    """Return a held place to the pool."""
    freed = update(Place).where(Place.assignment_id == assignment.id, ~Place.filled)
    affected_rows(session, freed.values(assignment_id=None, expires_at=None))


def empty_place(session: Session, assignment: Assignment) -> None:
    """Return even a filled place to the pool, for a run that a person has declined."""
    emptied = update(Place).where(Place.assignment_id == assignment.id)
    affected_rows(session, emptied.values(filled=False, assignment_id=None, expires_at=None))


def fill_place(session: Session, assignment: Assignment) -> None:
    """Fill the place of a finished run for good, if it still holds one."""
    filled = update(Place).where(Place.assignment_id == assignment.id, ~Place.filled)
    affected_rows(session, filled.values(filled=True, expires_at=None))


def lease_values(experiment: Experiment, assignment: Assignment) -> dict[str, Any]:
    """The columns of a place that is leased from now on."""
    return {"assignment_id": assignment.id, "expires_at": experiment.clock() + experiment.lease}


def affected_rows(session: Session, statement: Any) -> int:
    """Run an UPDATE or DELETE; returns how many rows it changed."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", result).rowcount


def has_place(session: Session, assignment: Assignment) -> bool:
    return session.scalar(select(Place.id).where(Place.assignment_id == assignment.id)) is not None
