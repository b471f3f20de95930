"""Approving submitted work at the marketplace. Every approval is recorded as pending before it is sent."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from server.db.enums import PaymentState, SubmissionStatus
from server.db.models import Assignment, MarketplaceSubmission, Payment, Posting
from server.payments import ledger
from server.recruiting.context import RecruitingContext
from server.recruiting.due import DuePayment, PaymentMethod, all_due
from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.snapshot import MarketplaceSnapshot, posting_of


def approve_complete(context: RecruitingContext, snapshot: MarketplaceSnapshot) -> int:
    """Approve the submissions that are complete here; returns how many were approved."""
    with context.reading() as session:
        due = [one for one in all_due(session, context) if one.method is PaymentMethod.APPROVE]
    return approve_listed(context, snapshot, due) + _approve_owed(context, snapshot)


def approve_listed(context: RecruitingContext, snapshot: MarketplaceSnapshot, due: Iterable[DuePayment]) -> int:
    """Approve these; returns how many were approved.

    Raises:
        MarketplaceError: the first refusal, after all the others were tried.
    """
    approved, refusal = 0, None
    for one in due:
        try:
            approved += _approve(context, snapshot, one)
        except MarketplaceError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    return approved


def _approve(context: RecruitingContext, snapshot: MarketplaceSnapshot, due: DuePayment) -> int:
    with context.writing() as session:
        row = session.get_one(MarketplaceSubmission, due.submission)
        submission = snapshot.submissions.get(row.key)
        if submission is None:
            return 0
        posting = posting_of(session, row.opening)
        assignment = session.get_one(Assignment, due.assignment)
        payment = ledger.record_pending(
            session, assignment, due.kind, due.cents, due.exact_fee, context.clock(), submission=row, opening=posting
        )
        if payment.state != PaymentState.PENDING or payment.submission_id not in (row.id, None):
            return 0
        payment.submission_id, number = row.id, payment.id
    context.marketplace.approve(submission)
    with context.writing() as session:
        ledger.settle(session, session.get_one(Payment, number), context.clock())
        session.get_one(MarketplaceSubmission, due.submission).status = SubmissionStatus.APPROVED
    return 1


def _approve_owed(context: RecruitingContext, snapshot: MarketplaceSnapshot) -> int:
    """Approve submissions to places that were made for one listener, whose payment is recorded already."""
    with context.reading() as session:
        query = select(MarketplaceSubmission, Posting).join(Posting, MarketplaceSubmission.opening == Posting.market_id)
        rows = session.execute(
            query.where(MarketplaceSubmission.status == SubmissionStatus.SUBMITTED, Posting.owed_to.is_not(None))
        ).all()
        found = [(row.id, row.key, posting.id) for row, posting in rows]
    for number, key, posting_id in found:
        if key not in snapshot.submissions:
            continue
        context.marketplace.approve(snapshot.submissions[key])
        with context.writing() as session:
            payment = session.scalar(select(Payment).where(Payment.opening_id == posting_id))
            row = session.get_one(MarketplaceSubmission, number)
            row.status = SubmissionStatus.APPROVED
            if payment is not None:
                payment.submission_id = row.id
                ledger.settle(session, payment, context.clock())
    return len(found)
