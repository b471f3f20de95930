"""Status: how far a study has come, counted; and the completion codes that were shown, for paying listeners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.models import ACTIVE, COMPLETED, TURNED_AWAY, Assignment, Place, Response, State
from server.responses import standing
from study.config import PayConfig


def count(session: Session) -> dict[str, Any]:
    """Places (all, free, held, filled), listeners by state, and responses."""
    places = list(session.execute(select(Place.assignment_id, Place.filled)))
    held = {assignment for assignment, filled in places if assignment is not None and not filled}
    filled = sum(filled for _, filled in places)
    listeners = dict.fromkeys((state.value for state in State), 0)
    for assignment in session.scalars(select(Assignment)):
        listeners[standing(assignment, assignment.id in held).value] += 1
    shown = {"consented", "screened", "listening", "finished", "screened_out", "withdrawn", "expired"}
    return {
        "places": {"all": len(places), "free": len(places) - filled - len(held), "held": len(held), "filled": filled},
        "listeners": {name: number for name, number in listeners.items() if number or name in shown},
        "responses": session.scalar(select(func.count()).select_from(Response)) or 0,
    }


def shown_codes(session: Session, pay: PayConfig) -> Iterator[tuple[str, str, float]]:
    """(code, outcome, US dollars) of every assignment that has ended; no pseudonym, so that nothing joins the two."""
    ended = select(Assignment).where(Assignment.state.not_in(ACTIVE)).order_by(Assignment.completion_code)
    for assignment in session.scalars(ended):
        yield assignment.completion_code, assignment.state.value, _due(assignment.state, pay)


def _due(state: State, pay: PayConfig) -> float:
    if state in COMPLETED:
        return pay.reward_usd
    if state is State.EXPIRED:
        return pay.expired_usd
    return pay.screened_out_usd if state in TURNED_AWAY else pay.withdrawn_usd
