"""What is owed and not yet paid, and what needs a person's decision."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.models import (
    LIVE,
    Assignment,
    MarketplaceSubmission,
    Payment,
    Posting,
)
from server.payments import ledger
from server.recruiting.launch import RecruitingContext
from server.recruiting.marketplaces.base import (
    Kind,
)
from server.recruiting.snapshot import posting_of


@dataclass(frozen=True)
class DuePayment:
    """Money to be paid: by approving `submission` (an id of ours), by a grant, or by a place made for it alone."""

    assignment: int
    pseudonym: str
    kind: Kind
    cents: int
    fee: int
    how: str  # "approve", "grant", "place", "by hand", or "wait": they may submit still
    submission: int | None = None

    @property
    def cost(self) -> int:
        return self.cents + self.fee


def all_due(session: Session, office: RecruitingContext) -> list[DuePayment]:
    """Everything that is owed and not paid or under way, by how it can be paid."""
    booked: dict[int | None, list[Payment]] = defaultdict(list)
    for one in session.scalars(select(Payment)):
        if is_under_way(session, one):
            booked[one.assignment_id].append(one)
    found = []
    for assignment in session.scalars(select(Assignment).order_by(Assignment.id)):
        owed = ledger.owed(assignment, booked[assignment.id], office.config.pay)
        if owed is None:
            continue
        rows = ledger.submissions_of(session, assignment)
        if not ledger.is_rejected(rows):
            found.append(_due(session, office, assignment, rows, *owed))
    return found


def is_under_way(session: Session, payment: Payment) -> bool:
    """Paid, decided, or pending and seen to; a pending approval is due again, and so is a place in vain."""
    if payment.state != "pending" or payment.opening_id is None:
        return True
    opening = session.get_one(Posting, payment.opening_id)
    return opening.owed_to is not None and opening.settled_at is None


def _due(
    session: Session,
    office: RecruitingContext,
    assignment: Assignment,
    rows: list[MarketplaceSubmission],
    kind: Kind,
    amount: int,
) -> DuePayment:
    at = office.recruiter.terms
    who = (assignment.id, assignment.pseudonym, kind)
    if at.by_hand:
        return DuePayment(*who, amount, 0, "by hand")
    submitted = next((row for row in rows if row.status == "submitted"), None)
    apart = at.screen_out_apart and kind != "reward"
    if submitted is not None and not apart and amount >= office.reward:
        opening = posting_of(session, submitted.opening)
        reward, fee = (opening.reward_cents, opening.fee_cents) if opening else (office.reward, office.fee)
        return DuePayment(*who, reward, fee, "approve", submitted.id)
    if rows and (at.pays_unsubmitted or apart) and (apart or not any(row.status in LIVE for row in rows)):
        return DuePayment(*who, amount, office.recruiter.fee(amount), "grant", rows[0].id)
    if any(row.status in LIVE for row in rows) or at.pays_unsubmitted:
        return DuePayment(*who, amount, office.recruiter.fee(amount), "wait")
    return DuePayment(*who, amount, office.recruiter.fee(amount), "place")


def approvable_by_override(session: Session, office: RecruitingContext) -> list[DuePayment]:
    """The submissions that are for a person to decide, as if they were complete."""
    found = []
    for row, assignment in needs_manual_review(session, office):
        opening = posting_of(session, row.opening)
        if assignment is not None and opening is not None:
            kind = ledger.due(assignment.state, office.config.pay)[0]
            who = (assignment.id, assignment.pseudonym, kind)
            found.append(DuePayment(*who, opening.reward_cents, opening.fee_cents, "approve", row.id))
    return found


def needs_manual_review(
    session: Session, office: RecruitingContext
) -> list[tuple[MarketplaceSubmission, Assignment | None]]:
    """Submissions that the database does not show complete: for a person to decide."""
    approvable = {one.submission for one in all_due(session, office) if one.how in ("approve", "grant")}
    owed = set(session.scalars(select(Posting.market_id).where(Posting.owed_to.is_not(None))))
    query = (
        select(MarketplaceSubmission)
        .where(MarketplaceSubmission.status == "submitted")
        .order_by(MarketplaceSubmission.id)
    )
    return [
        (row, session.get(Assignment, row.assignment_id) if row.assignment_id else None)
        for row in session.scalars(query)
        if row.id not in approvable and row.opening not in owed
    ]
