"""Status: counts of places, listeners, money and identities, and the completion codes that were shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.assignments.steps import effective_state
from server.db.models import (
    ACTIVE,
    Assignment,
    AssignmentState,
    MarketplaceSubmission,
    Payment,
    Place,
    Posting,
    Response,
)
from server.payments import formatting, hourly_pay, ledger
from server.privacy import retention
from study.config import StudyConfig
from study.config_sections import PayConfig


def count(session: Session) -> dict[str, Any]:
    """Places (all, free, held, filled), listeners by state, and responses."""
    places = list(session.execute(select(Place.assignment_id, Place.filled)))
    held = {assignment for assignment, filled in places if assignment is not None and not filled}
    filled = sum(filled for _, filled in places)
    listeners = dict.fromkeys((state.value for state in AssignmentState), 0)
    for assignment in session.scalars(select(Assignment)):
        listeners[effective_state(assignment, assignment.id in held).value] += 1
    shown = {"consented", "screened", "listening", "finished", "screened_out", "withdrawn", "expired"}
    return {
        "places": {"all": len(places), "free": len(places) - filled - len(held), "held": len(held), "filled": filled},
        "listeners": {name: number for name, number in listeners.items() if number or name in shown},
        "responses": session.scalar(select(func.count()).select_from(Response)) or 0,
    }


def money(session: Session, pay: PayConfig) -> dict[str, Any]:
    """The launch at the marketplace: submissions and US dollars; empty if the study is not launched."""
    launch = ledger.launch(session)
    if launch is None:
        return {}
    statuses = select(MarketplaceSubmission.status, func.count()).group_by(MarketplaceSubmission.status)
    openings = select(Posting.settled_at.is_(None), func.count()).group_by(Posting.settled_at.is_(None))
    under_way = {bool(open_): number for open_, number in session.execute(openings)}
    kinds = select(Payment.kind, func.sum(Payment.cents)).where(Payment.state == "paid").group_by(Payment.kind)
    amounts: dict[str, Any] = {kind: formatting.dollars(amount) for kind, amount in session.execute(kinds)}
    amounts |= {
        "fees": formatting.dollars(ledger.fees_paid(session)),
        "paid": formatting.dollars(ledger.paid(session)),
        "in_doubt": len(ledger.pending(session)),
        "at_most": formatting.dollars(ledger.committed(session)),
        "budget": formatting.budget(launch.budget_cents),
    }
    settled = {"openings": under_way.get(True, 0), "openings_settled": under_way.get(False, 0)}
    return {"marketplace": settled | _by_name(session, statuses), "money": amounts}


def wage(session: Session, pay: PayConfig) -> dict[str, Any]:
    """The measured hourly pay and its minimum; empty before anyone finished."""
    found = hourly_pay.hourly_pay(session, pay)
    if found is None:
        return {}
    rows = {
        "minutes_at_work": f"{found.minutes:.1f}",
        "median_an_hour": f"${found.median:.2f}",
        "tenth_percentile": f"${found.tenth:.2f}",
        "floor": f"${pay.floor_usd_per_hour:.2f}",
    }
    if found.below:
        people = "1 person" if found.below == 1 else f"{found.below} people"
        missing = formatting.dollars(found.missing)
        rows["below_the_floor"] = f"{people}, by {missing} in all; `rootnote server pay --to-floor` pays the difference"
    return {"wage": rows}


def identities(session: Session, config: StudyConfig, now: datetime) -> dict[str, Any]:
    """How many identities are stored, when they are due to be deleted, and how many were deleted."""
    found = retention.status(session, config, now)
    rows: dict[str, Any] = {"kept": found.stored}
    if found.stored:
        rows["due"] = f"{found.due:%Y-%m-%d %H:%M} UTC" if found.due else f"not yet: {found.waiting}"
    if found.purged_at is not None:
        rows["deleted"] = f"{found.purged}, last at {found.purged_at:%Y-%m-%d %H:%M} UTC"
    return {"identities": rows}


def _by_name(session: Session, query: Any) -> dict[str, int]:
    return {str(row[0]): int(row[1]) for row in session.execute(query)}


def shown_codes(session: Session, pay: PayConfig) -> Iterator[tuple[str, str, float]]:
    """(code, outcome, US dollars) of every ended assignment; without pseudonyms, so that nothing can be linked."""
    ended = select(Assignment).where(Assignment.state.not_in(ACTIVE)).order_by(Assignment.completion_code)
    for assignment in session.scalars(ended):
        yield assignment.completion_code, assignment.state.value, _due(assignment.state, pay)


def _due(state: AssignmentState, pay: PayConfig) -> float:
    return ledger.due(state, pay)[1] / 100
