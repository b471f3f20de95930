"""Status: counts of places, listeners, money and identities, and the completion codes that were shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.assignments.steps import effective_state
from server.db.enums import RunVerification
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
from study.money import amount


def count(session: Session) -> dict[str, Any]:
    """Places (all, free, held, filled), listeners by state and by verification, and responses."""
    places = list(session.execute(select(Place.assignment_id, Place.filled)))
    held = {assignment for assignment, filled in places if assignment is not None and not filled}
    filled = sum(filled for _, filled in places)
    listeners = dict.fromkeys((state.value for state in AssignmentState), 0)
    standing = dict.fromkeys((one.value for one in RunVerification), 0)
    for assignment in session.scalars(select(Assignment)):
        listeners[effective_state(assignment, assignment.id in held).value] += 1
        standing[assignment.verification.value] += 1
    shown = {"consented", "screened", "listening", "finished", "screened_out", "withdrawn", "expired"}
    return {
        "places": {"all": len(places), "free": len(places) - filled - len(held), "held": len(held), "filled": filled},
        "listeners": {name: number for name, number in listeners.items() if number or name in shown},
        "verification": {name: number for name, number in standing.items() if number},
        "responses": session.scalar(select(func.count()).select_from(Response)) or 0,
    }


def money(session: Session, config: StudyConfig) -> dict[str, Any]:
    """The launch at the marketplace: submissions and money; empty if the study is not launched."""
    launch = ledger.launch(session)
    if launch is None:
        return {}
    statuses = select(MarketplaceSubmission.status, func.count()).group_by(MarketplaceSubmission.status)
    openings = select(Posting.settled_at.is_(None), func.count()).group_by(Posting.settled_at.is_(None))
    under_way = {bool(open_): number for open_, number in session.execute(openings)}
    kinds = select(Payment.kind, func.sum(Payment.cents)).where(Payment.state == "paid").group_by(Payment.kind)
    amounts: dict[str, Any] = {
        kind: formatting.as_money(cents, config.currency) for kind, cents in session.execute(kinds)
    }
    amounts |= {
        "fees": formatting.as_money(ledger.fees_paid(session), config.currency),
        "paid": formatting.as_money(ledger.paid(session), config.currency),
        "in_doubt": len(ledger.pending(session)),
        "at_most": formatting.as_money(ledger.committed(session), config.currency),
        "budget": formatting.budget(launch.budget_cents, config.currency),
    }
    settled = {"openings": under_way.get(True, 0), "openings_settled": under_way.get(False, 0)}
    return {"marketplace": settled | _by_name(session, statuses), "money": amounts}


def wage(session: Session, config: StudyConfig) -> dict[str, Any]:
    """The measured hourly pay and its minimum; empty before anyone finished."""
    found = hourly_pay.hourly_pay(session, config.pay)
    if found is None:
        return {}
    rows = {
        "minutes_at_work": f"{found.minutes:.1f}",
        "median_an_hour": amount(found.median, config.currency),
        "tenth_percentile": amount(found.tenth, config.currency),
        "floor": amount(config.pay.floor_per_hour, config.currency),
    }
    if found.below:
        people = "1 person" if found.below == 1 else f"{found.below} people"
        missing = formatting.as_money(found.missing, config.currency)
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
    """(code, outcome, pay) of every ended assignment; without pseudonyms, so that nothing can be linked."""
    ended = select(Assignment).where(Assignment.state.not_in(ACTIVE)).order_by(Assignment.completion_code)
    for assignment in session.scalars(ended):
        counts = assignment.verification is not RunVerification.UNCONFIRMED  # nothing is owed for others
        outcome, due = (assignment.state.value, _due(assignment.state, pay)) if counts else ("unconfirmed", 0.0)
        yield assignment.completion_code, outcome, due


def _due(state: AssignmentState, pay: PayConfig) -> float:
    return ledger.due(state, pay)[1] / 100
