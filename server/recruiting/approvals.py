"""Approving submitted work at the marketplace. Every approval is recorded as pending before it is sent."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from server.db.models import (
    Assignment,
    MarketplaceSubmission,
    Payment,
    Posting,
)
from server.payments import ledger
from server.recruiting.due import DuePayment, all_due
from server.recruiting.launch import RecruitingContext
from server.recruiting.snapshot import MarketplaceSnapshot, posting_of


def approve_complete(office: RecruitingContext, sight: MarketplaceSnapshot) -> int:
    """Approve what was submitted and is complete here; how many were."""
    with office.reading() as session:
        due = [one for one in all_due(session, office) if one.how == "approve"]
    return approve_listed(office, sight, due) + _approve_owed(office, sight)


def approve_listed(office: RecruitingContext, sight: MarketplaceSnapshot, due: Iterable[DuePayment]) -> int:
    """Approve these; how many were."""
    return sum(_approve(office, sight, one) for one in due)


def _approve(office: RecruitingContext, sight: MarketplaceSnapshot, due: DuePayment) -> int:
    with office.writing() as session:
        row = session.get_one(MarketplaceSubmission, due.submission)
        told = sight.told.get(row.key)
        if told is None:
            return 0
        opening = posting_of(session, row.opening)
        assignment = session.get_one(Assignment, due.assignment)
        payment = ledger.record_pending(
            session, assignment, due.kind, due.cents, due.fee, office.clock(), submission=row, opening=opening
        )
        if payment.state != "pending" or payment.submission_id not in (row.id, None):
            return 0
        payment.submission_id, number = row.id, payment.id
    office.recruiter.approve(told)
    with office.writing() as session:
        ledger.settle(session, session.get_one(Payment, number), office.clock())
        session.get_one(MarketplaceSubmission, due.submission).status = "approved"
    return 1


def _approve_owed(office: RecruitingContext, sight: MarketplaceSnapshot) -> int:
    """Approve what was submitted at places made for one listener, whose payment is written down already."""
    with office.reading() as session:
        query = select(MarketplaceSubmission, Posting).join(Posting, MarketplaceSubmission.opening == Posting.market_id)
        rows = session.execute(
            query.where(MarketplaceSubmission.status == "submitted", Posting.owed_to.is_not(None))
        ).all()
        found = [(row.id, row.key, opening.id) for row, opening in rows]
    for submission, key, opening_id in found:
        if key not in sight.told:
            continue
        office.recruiter.approve(sight.told[key])
        with office.writing() as session:
            payment = session.scalar(select(Payment).where(Payment.opening_id == opening_id))
            row = session.get_one(MarketplaceSubmission, submission)
            row.status = "approved"
            if payment is not None:
                payment.submission_id = row.id
                ledger.settle(session, payment, office.clock())
    return len(found)
