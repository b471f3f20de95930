"""Statements of the requests that come most often, put together once.

To put a statement together, and to have the ORM make objects of what comes back, costs more processor time than all
that the database does for it. These read and write tables, not objects: rows come as tuples, and what a session still
holds back is not flushed for them.
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


_assignments, _places, _responses, _servings = map(_table, (Assignment, Place, Response, ClipDelivery))
_mine = bindparam("mine", type_=Integer)  # the id of an assignment

# The assignment at a listener's address, as an object.
FIND = select(Assignment).where(Assignment.token_hash == bindparam("hash"))
FIND_AND_LOCK = FIND.with_for_update()

_answered = select(func.count()).select_from(_responses).where(_responses.c.assignment_id == _mine)
ANSWERED = _answered
# Whether a place is held, and how many trials are answered.
STANDING = select(
    exists().where(_places.c.assignment_id == _mine).label("held"), _answered.scalar_subquery().label("answered")
)

# How many trials are answered, beside each clip served of those that are not: at least one row.
_counted = select(func.count().label("answered")).where(_responses.c.assignment_id == _mine).subquery("counted")
_later = and_(_servings.c.assignment_id == _mine, _servings.c.position > _counted.c.answered)
CLIPS = select(
    _counted.c.answered, _servings.c.position, _servings.c.slot, _servings.c.sound, _servings.c.fetched_at
).select_from(_counted.outerjoin(_servings, _later))

# Whose clip a sound is, and how many trials they have answered.
_theirs = select(func.count()).select_from(_responses).where(_responses.c.assignment_id == _servings.c.assignment_id)
SOUND = (
    select(
        _servings.c.id,
        _servings.c.position,
        _servings.c.slot,
        _servings.c.fetched_at,
        _assignments.c.state,
        _assignments.c.list_number,
        _theirs.scalar_subquery().label("answered"),
    )
    .join_from(_servings, _assignments)
    .where(_servings.c.sound == bindparam("name"))
)

RENEW = (
    update(_places)
    .where(_places.c.assignment_id == _mine, ~_places.c.filled)
    .values(expires_at=bindparam("until", type_=_places.c.expires_at.type))
)
MARK = (
    update(_servings)
    .where(_servings.c.id == bindparam("serving"), _servings.c.fetched_at.is_(None))
    .values(fetched_at=bindparam("at", type_=_servings.c.fetched_at.type))
)
ADD_RESPONSE = insert(_responses).inline()


def serve(slots: Sequence[str]) -> Insert:
    """Name the clips of one trial: of :mine at :position, each slot's by the parameter of its name."""
    named = union_all(
        *(
            select(_mine, bindparam("position", type_=Integer), literal(slot), bindparam(slot, type_=String))
            for slot in slots
        )
    )
    return insert(_servings).from_select(["assignment_id", "position", "slot", "sound"], named).inline()


def run(session: Session, statement: Executable, **values: Any) -> CursorResult[Any]:
    """Run one of these within the session's transaction."""
    return session.connection().execute(statement, values)
