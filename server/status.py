"""Status: how far a study has come, counted; and the completion codes that were shown, for paying listeners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server import desk, payments
from server.models import (
    ACTIVE,
    COMPLETED,
    TURNED_AWAY,
    Assignment,
    Opening,
    Payment,
    Place,
    Response,
    State,
    Submission,
)
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


def money(session: Session, pay: PayConfig) -> dict[str, Any]:
    """The launch at the marketplace, in submissions and US dollars; empty where the study is not launched."""
    launch = payments.launch(session)
    if launch is None:
        return {}
    statuses = select(Submission.status, func.count()).group_by(Submission.status)
    openings = select(Opening.settled_at.is_(None), func.count()).group_by(Opening.settled_at.is_(None))
    under_way = {bool(open_): number for open_, number in session.execute(openings)}
    kinds = select(Payment.kind, func.sum(Payment.cents)).where(Payment.state == "paid").group_by(Payment.kind)
    fees = select(func.coalesce(func.sum(Payment.fee_cents), 0)).where(Payment.state == "paid")
    durations = desk.durations(session, pay.reward_usd)
    told: dict[str, Any] = {kind: payments.dollars(amount) for kind, amount in session.execute(kinds)}
    told |= {
        "fees": payments.dollars(session.scalar(fees) or 0),
        "paid": payments.dollars(payments.paid(session)),
        "in_doubt": len(payments.pending(session)),
        "at_most": payments.dollars(payments.committed(session)),
        "budget": payments.dollars(launch.budget_cents),
    }
    if durations is not None and durations.usd_per_hour is not None:
        told["wage_an_hour"] = f"${durations.usd_per_hour:.2f}"
    settled = {"openings": under_way.get(True, 0), "openings_settled": under_way.get(False, 0)}
    return {"marketplace": settled | _by_name(session, statuses), "money": told}


def _by_name(session: Session, query: Any) -> dict[str, int]:
    return {str(row[0]): int(row[1]) for row in session.execute(query)}


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
