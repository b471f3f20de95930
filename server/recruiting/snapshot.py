"""Snapshots: the marketplace's postings and submissions, and updating our records from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.assignments import lifecycle
from server.db.enums import LIVE, PaymentKind, PaymentState, SubmissionStatus
from server.db.models import (
    ACTIVE,
    COMPLETED,
    Assignment,
    AssignmentState,
    Listener,
    MarketplaceSubmission,
    Payment,
    Posting,
)
from server.db.upsert import find_or_add
from server.payments import ledger
from server.payments.fees import joined, millionths
from server.recruiting.confirmation import record_listing
from server.recruiting.context import RecruitingContext
from server.recruiting.marketplaces.base import PostingStatus, ReportedSubmission
from study.config import cents

GIVEN_BACK = (SubmissionStatus.RETURNED, SubmissionStatus.TIMED_OUT)


@dataclass(frozen=True)
class MarketplaceSnapshot:
    """The postings by their id at the marketplace, and every submission by our key."""

    postings: Mapping[str, PostingStatus]
    submissions: Mapping[str, ReportedSubmission]


def record_snapshot(context: RecruitingContext) -> MarketplaceSnapshot:
    """Ask for the status of every posting that is not settled, and record what is new."""
    began = context.clock()
    snapshot = fetch_snapshot(context)
    with context.writing() as session:
        record_submissions(session, context, snapshot.postings, began)
    return snapshot


def fetch_snapshot(context: RecruitingContext) -> MarketplaceSnapshot:
    """Ask for the status of every posting that is not settled; records nothing."""
    if not context.marketplace.capabilities.lists_submissions:
        return MarketplaceSnapshot({}, {})
    with context.reading() as session:
        query = select(Posting.market_id).where(Posting.settled_at.is_(None), Posting.market_id.is_not(None))
        ids = sorted({str(one) for one in session.scalars(query)})
    postings = {id_: context.marketplace.submissions(id_) for id_ in ids}
    submissions = {submission_key(context, one): one for status in postings.values() for one in status.submissions}
    return MarketplaceSnapshot(postings, submissions)


def record_submissions(
    session: Session, context: RecruitingContext, postings: Mapping[str, PostingStatus], began: datetime
) -> None:
    """Record a snapshot. `began`: when the fetch started."""
    lifecycle.expire_absent(session, began)
    if not context.marketplace.capabilities.lists_submissions:
        _release_ended(session)
        return
    for market_id, status in postings.items():
        _record_posting(session, context, market_id, status, began)
    record_listing(session, context, postings, began)
    _time_out_stale(session, context, set(postings), began)


def _release_ended(session: Session) -> None:
    """For a marketplace that reports nothing: release a place when its listener's run ends without finishing."""
    ended = select(Assignment.id).where(Assignment.state.not_in([*ACTIVE, *COMPLETED]))
    held = select(MarketplaceSubmission).where(MarketplaceSubmission.status == SubmissionStatus.HELD)
    for row in session.scalars(held.where(MarketplaceSubmission.assignment_id.in_(ended))):
        row.status = SubmissionStatus.RETURNED


def _time_out_stale(session: Session, context: RecruitingContext, reported: set[str], began: datetime) -> None:
    """Time out submissions whose posting was already settled when the worker arrived (from an old page, or again)."""
    over = select(Posting.market_id).where(Posting.settled_at.is_not(None), Posting.market_id.not_in(reported))
    held = select(MarketplaceSubmission).where(
        MarketplaceSubmission.status == SubmissionStatus.HELD, MarketplaceSubmission.opening.in_(over)
    )
    for row in session.scalars(held.where(MarketplaceSubmission.seen_at <= began - context.margin)):
        row.status = SubmissionStatus.TIMED_OUT
        update_assignment_state(session, context.clock(), row)


def submission_key(context: RecruitingContext, submission: ReportedSubmission) -> str:
    return context.signer.submission_key(submission.worker, submission.id)


def _record_posting(
    session: Session, context: RecruitingContext, market_id: str, status: PostingStatus, began: datetime
) -> None:
    known = set()
    for submission in status.submissions:
        row = _submission_row(session, context, submission)
        known.add(row.key)
        row.status = submission.status
        update_assignment_state(session, context.clock(), row)
        _record_decision(session, context, row)
    held = select(MarketplaceSubmission).where(
        MarketplaceSubmission.opening == market_id, MarketplaceSubmission.status == SubmissionStatus.HELD
    )
    for row in session.scalars(held.where(MarketplaceSubmission.seen_at <= began - context.margin)):
        if row.key not in known and (vanished := _status_of_vanished(context, row, status, began)):
            row.status = vanished
            update_assignment_state(session, context.clock(), row)
    _record_terms(session, context, market_id, status)
    _settle_posting(session, context, market_id, status)


def _submission_row(
    session: Session, context: RecruitingContext, submission: ReportedSubmission
) -> MarketplaceSubmission:
    """Our row of a submission; a new one if the worker never reached our server."""
    key = submission_key(context, submission)
    row = session.scalar(select(MarketplaceSubmission).where(MarketplaceSubmission.key == key))
    if row is not None:
        return row
    query = (
        select(Assignment.id)
        .join(Listener)
        .where(Listener.worker_hash == context.signer.worker_hash(submission.worker))
    )
    values = {
        "assignment_id": session.scalar(query),
        "opening": submission.opening,
        "status": submission.status,
        "seen_at": context.clock(),
    }
    # The worker may arrive at this very moment.
    return find_or_add(session, MarketplaceSubmission, {"key": key}, values)


def _status_of_vanished(
    context: RecruitingContext, row: MarketplaceSubmission, status: PostingStatus, began: datetime
) -> SubmissionStatus | None:
    """The state of a held place, for a marketplace that does not report who holds one."""
    if status.held == 0:
        return SubmissionStatus.RETURNED
    minutes = context.marketplace.capabilities.hold_minutes
    over = minutes is not None and row.seen_at + timedelta(minutes=minutes) <= began
    return SubmissionStatus.TIMED_OUT if over else None


def update_assignment_state(session: Session, now: datetime, row: MarketplaceSubmission) -> None:
    """Update the assignment's state from its submission."""
    if row.assignment_id is None:
        return
    # A key-share lock: a listener who arrives only refers to the row, and may hold a submission that we record now.
    assignment = session.get_one(Assignment, row.assignment_id, with_for_update={"key_share": True})
    if row.status == SubmissionStatus.SUBMITTED and assignment.state is AssignmentState.FINISHED:
        assignment.state = AssignmentState.SUBMITTED
    if row.status == SubmissionStatus.APPROVED and assignment.state in (
        AssignmentState.FINISHED,
        AssignmentState.SUBMITTED,
    ):
        assignment.state = AssignmentState.APPROVED
    over = row.status in GIVEN_BACK or row.status == SubmissionStatus.SCREENED_OUT
    if over and assignment.state in ACTIVE and not _holds_another(session, row):
        lifecycle.return_place(session, now, assignment)
    session.flush()


def _holds_another(session: Session, row: MarketplaceSubmission) -> bool:
    same = (
        MarketplaceSubmission.assignment_id == row.assignment_id,
        MarketplaceSubmission.id != row.id,
        MarketplaceSubmission.status.in_(LIVE),
    )
    return session.scalar(select(MarketplaceSubmission.id).where(*same).limit(1)) is not None


def _record_decision(session: Session, context: RecruitingContext, row: MarketplaceSubmission) -> None:
    """Record what was decided at the marketplace: approved, screened out, or rejected by a person."""
    if row.status == SubmissionStatus.SCREENED_OUT:
        _record_screen_out(session, context, row)
        return
    if row.status not in (SubmissionStatus.APPROVED, SubmissionStatus.REJECTED):
        return
    posting = posting_of(session, row.opening)
    if posting is None:
        return
    rewards = select(Payment).where(Payment.opening_id.is_not(None))
    payment = session.scalar(rewards.where(Payment.submission_id == row.id))
    if payment is None and posting.owed_to is not None:
        payment = session.scalar(rewards.where(Payment.opening_id == posting.id))
    if row.status == SubmissionStatus.REJECTED:
        if payment is not None and payment.state == PaymentState.PENDING:
            payment.state = PaymentState.VOID
        return
    if payment is None:
        payment = _record_external_payment(session, context, row, posting)
    payment.submission_id = row.id
    ledger.settle(session, payment, context.clock())


def _record_screen_out(session: Session, context: RecruitingContext, row: MarketplaceSubmission) -> None:
    """Record that the marketplace screened a worker out and paid them by itself."""
    posting = session.scalar(
        select(Posting).where(Posting.market_id == row.opening, Posting.screen_outs > 0).order_by(Posting.id).limit(1)
    )
    assignment = session.get(Assignment, row.assignment_id) if row.assignment_id else None
    earlier = select(Payment.id).where(Payment.submission_id == row.id, Payment.kind == PaymentKind.SCREEN_OUT)
    known = assignment is not None and ledger.find(session, assignment, PaymentKind.SCREEN_OUT) is not None
    if posting is None or known or session.scalar(earlier.limit(1)) is not None:
        return
    amount, now = cents(context.config.pay.screened_out), context.clock()
    fee = context.marketplace.exact_fee(amount)
    kind = PaymentKind.SCREEN_OUT
    payment = ledger.record_pending(session, assignment, kind, amount, fee, now, submission=row, opening=posting)
    ledger.settle(session, payment, now)


def _record_external_payment(
    session: Session, context: RecruitingContext, row: MarketplaceSubmission, posting: Posting
) -> Payment:
    """Record an approval that Rootnote did not send: automatic after the marketplace's delay, or by a person."""
    assignment = session.get(Assignment, row.assignment_id) if row.assignment_id else None
    kind = ledger.due(assignment.state, context.config.pay)[0] if assignment else PaymentKind.REWARD
    kinds = ledger.settles(assignment.state, context.config.pay) if assignment else ()
    earlier = ledger.find(session, assignment, *kinds) if assignment is not None else None
    if earlier is not None:
        # Paid already, for another submission or by a direct payment for this one. If that payment is in unknown state
        # and proves not to have been made, `reconcile_direct_payments` puts this approval in its place.
        assignment = None
        kind = PaymentKind.PAID_AGAIN if earlier.submission_id == row.id else kind
    return ledger.record_pending(
        session,
        assignment,
        kind,
        posting.reward_cents,
        joined(posting.fee_cents, posting.fee_millionths),
        context.clock(),
        submission=row,
        opening=posting,
    )


def posting_of(session: Session, market_id: str) -> Posting | None:
    """The first posting with this id at the marketplace."""
    return session.scalar(select(Posting).where(Posting.market_id == market_id).order_by(Posting.id).limit(1))


def screen_out_cost(context: RecruitingContext) -> int:
    """What a screen-out costs that the marketplace pays by itself, in millionths of a cent."""
    amount = cents(context.config.pay.screened_out)
    return millionths(amount + context.marketplace.exact_fee(amount))


def _record_terms(session: Session, context: RecruitingContext, market_id: str, status: PostingStatus) -> None:
    """Record what the marketplace allows: how many screen-outs it pays by itself, and whether arrivals are signed."""
    own = (Posting.market_id == market_id, Posting.owed_to.is_(None), Posting.settled_at.is_(None))
    for number, posting in enumerate(session.scalars(select(Posting).where(*own).order_by(Posting.id))):
        posting.screen_outs, posting.secure = (0 if number else status.screen_outs), status.secure
        posting.screen_out_cost = screen_out_cost(context) if posting.screen_outs else 0


def _settle_posting(session: Session, context: RecruitingContext, market_id: str, status: PostingStatus) -> None:
    """A posting is settled when no place can be taken or is held and every submission is decided."""
    waiting = any(one.status in LIVE for one in status.submissions)
    if (status.free and not status.draft) or status.held or waiting:
        return
    rows = list(session.scalars(select(Posting).where(Posting.market_id == market_id)))
    if any(row.closed_at is None for row in rows) and not context.marketplace.capabilities.batch:
        return  # one posting takes all orders: places may be added to it
    for row in rows:
        row.settled_at = context.clock()
