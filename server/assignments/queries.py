"""SQL statements of the most frequent requests, built once.

Building a statement, and turning its rows into ORM objects, takes more processor time than the database needs to run
it. These statements work on tables: rows come as tuples, and pending objects of the session are not flushed for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import (
    CursorResult,
    Executable,
    Insert,
    Integer,
    String,
    Table,
    and_,
    bindparam,
    exists,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from server.db.models import Assignment, Base, ClipDelivery, Place, Response


def _table(model: type[Base]) -> Table:
    return cast(Table, model.__table__)


_assignments, _places, _responses, _deliveries = map(_table, (Assignment, Place, Response, ClipDelivery))
_assignment = bindparam("assignment", type_=Integer)  # its id

# The assignment at a listener's address, as an object.
FIND = select(Assignment).where(Assignment.token_hash == bindparam("hash"))
FIND_AND_LOCK = FIND.with_for_update()

_answered = select(func.count()).select_from(_responses).where(_responses.c.assignment_id == _assignment)
ANSWERED = _answered
# Whether a place is held, and how many trials are answered.
PROGRESS = select(
    exists().where(_places.c.assignment_id == _assignment).label("held"), _answered.scalar_subquery().label("answered")
)

# How many trials are answered and when the last was, with each clip served for the others: at least one row.
_counted = (
    select(func.count().label("answered"), func.max(_responses.c.answered_at).label("answered_at"))
    .where(_responses.c.assignment_id == _assignment)
    .subquery("counted")
)
_later = and_(_deliveries.c.assignment_id == _assignment, _deliveries.c.position > _counted.c.answered)
SERVED_CLIPS = select(
    _counted.c.answered,
    _counted.c.answered_at,
    _deliveries.c.position,
    _deliveries.c.slot,
    _deliveries.c.sound,
    _deliveries.c.fetched_at,
).select_from(_counted.outerjoin(_deliveries, _later))

# The assignment that a sound was served to, and how many of its trials are answered.
_answered_by_owner = (
    select(func.count()).select_from(_responses).where(_responses.c.assignment_id == _deliveries.c.assignment_id)
)
CLIP_BY_NAME = (
    select(
        _deliveries.c.id,
        _deliveries.c.position,
        _deliveries.c.slot,
        _deliveries.c.fetched_at,
        _assignments.c.state,
        _assignments.c.list_number,
        _answered_by_owner.scalar_subquery().label("answered"),
    )
    .join_from(_deliveries, _assignments)
    .where(_deliveries.c.sound == bindparam("name"))
)

RENEW_LEASE = (
    update(_places)
    .where(_places.c.assignment_id == _assignment, ~_places.c.filled)
    .values(expires_at=bindparam("until", type_=_places.c.expires_at.type))
)
MARK_FETCHED = (
    update(_deliveries)
    .where(_deliveries.c.id == bindparam("delivery"), _deliveries.c.fetched_at.is_(None))
    .values(fetched_at=bindparam("at", type_=_deliveries.c.fetched_at.type))
)
SENT_PARTS = select(_deliveries.c.sent).where(_deliveries.c.id == bindparam("delivery")).with_for_update()
NOTE_PARTS = (
    update(_deliveries)
    .where(_deliveries.c.id == bindparam("delivery"))
    .values(sent=bindparam("parts", type_=_deliveries.c.sent.type))
)
ADD_RESPONSE = insert(_responses).inline()


def insert_deliveries(slots: Sequence[str]) -> Insert:
    """Name the clips of the trial at :position of :assignment, each slot's clip by the parameter of its name."""
    named = union_all(
        *(
            select(_assignment, bindparam("position", type_=Integer), literal(slot), bindparam(slot, type_=String))
            for slot in slots
        )
    )
    return insert(_deliveries).from_select(["assignment_id", "position", "slot", "sound"], named).inline()


def run(session: Session, statement: Executable, **values: Any) -> CursorResult[Any]:
    """Run one of these statements within the session's transaction."""
    return session.connection().execute(statement, values)
