"""What the marketplace says about postings and submissions, and how our records follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.assignments import lifecycle
from server.db.models import (
    ACTIVE,
    LIVE,
    Assignment,
    AssignmentState,
    Listener,
    MarketplaceSubmission,
    Payment,
    Posting,
)
from server.db.upsert import find_or_add
from server.payments import ledger
from server.recruiting.launch import RecruitingContext
from server.recruiting.marketplaces.base import (
    Kind,
    PostingStatus,
)
from server.recruiting.marketplaces.base import SubmissionStatus as Told

GIVEN_BACK = ("returned", "timed_out")


@dataclass(frozen=True)
class MarketplaceSnapshot:
    """What was seen: openings by id, and every submission by our key."""

    standings: Mapping[str, PostingStatus]
    told: Mapping[str, Told]


def record_snapshot(office: RecruitingContext) -> MarketplaceSnapshot:
    """Ask how every opening stands that is not settled, and write down what is new."""
    began = office.clock()
    sight = fetch_snapshot(office)
    with office.writing() as session:
        record_submissions(session, office, sight.standings, began)
    return sight


def fetch_snapshot(office: RecruitingContext) -> MarketplaceSnapshot:
    """Ask how every opening stands that is not settled; nothing is written down."""
    with office.reading() as session:
        query = select(Posting.market_id).where(Posting.settled_at.is_(None), Posting.market_id.is_not(None))
        openings = sorted({str(one) for one in session.scalars(query)})
    standings = {id_: office.recruiter.submissions(id_) for id_ in openings}
    told = {submission_key(office, one): one for standing in standings.values() for one in standing.submissions}
    return MarketplaceSnapshot(standings, told)


def record_submissions(
    session: Session, office: RecruitingContext, standings: Mapping[str, PostingStatus], began: datetime
) -> None:
    """Write down what was seen; it was asked for at `began` or later."""
    lifecycle.expire_absent(session, began)
    for opening, standing in standings.items():
        _record_posting(session, office, opening, standing, began)
    _time_out_stale(session, office, set(standings), began)


def _time_out_stale(session: Session, office: RecruitingContext, seen: set[str], began: datetime) -> None:
    """Note those who hold nothing: their opening was over when they came, by a page left open, or came again."""
    over = select(Posting.market_id).where(Posting.settled_at.is_not(None), Posting.market_id.not_in(seen))
    held = select(MarketplaceSubmission).where(
        MarketplaceSubmission.status == "held", MarketplaceSubmission.opening.in_(over)
    )
    for row in session.scalars(held.where(MarketplaceSubmission.seen_at <= began - office.margin)):
        row.status = "timed_out"
        _update_assignment_state(session, office, row)


def submission_key(office: RecruitingContext, told: Told) -> str:
    return office.door.submission_key(told.worker, told.id)


def _record_posting(
    session: Session, office: RecruitingContext, opening: str, standing: PostingStatus, began: datetime
) -> None:
    known = set()
    for told in standing.submissions:
        row = _submission_row(session, office, told)
        known.add(row.key)
        row.status = told.status
        _update_assignment_state(session, office, row)
        _record_decision(session, office, row)
    held = select(MarketplaceSubmission).where(
        MarketplaceSubmission.opening == opening, MarketplaceSubmission.status == "held"
    )
    for row in session.scalars(held.where(MarketplaceSubmission.seen_at <= began - office.margin)):
        if row.key not in known and (status := _status_of_vanished(office, row, standing, began)):
            row.status = status
            _update_assignment_state(session, office, row)
    _settle_posting(session, office, opening, standing)


def _submission_row(session: Session, office: RecruitingContext, told: Told) -> MarketplaceSubmission:
    """Our row of a submission; made where its worker never came to us."""
    key = submission_key(office, told)
    row = session.scalar(select(MarketplaceSubmission).where(MarketplaceSubmission.key == key))
    if row is not None:
        return row
    mine = select(Assignment.id).join(Listener).where(Listener.worker_hash == office.door.worker_hash(told.worker))
    seen = {"opening": told.opening, "status": told.status, "seen_at": office.clock()}
    # The worker may arrive in this very moment.
    return find_or_add(session, MarketplaceSubmission, {"key": key}, {"assignment_id": session.scalar(mine), **seen})


def _status_of_vanished(
    office: RecruitingContext, row: MarketplaceSubmission, standing: PostingStatus, began: datetime
) -> str:
    """What has become of a place that was held, where the marketplace does not say who holds one."""
    if standing.held == 0:
        return "returned"
    minutes = office.recruiter.terms.hold_minutes
    return "timed_out" if minutes is not None and row.seen_at + timedelta(minutes=minutes) <= began else ""


def _update_assignment_state(session: Session, office: RecruitingContext, row: MarketplaceSubmission) -> None:
    """Let the assignment's state follow its submission."""
    if row.assignment_id is None:
        return
    # Locked, but not for who arrives and only refers to it: that one may hold a submission that we are about to note.
    assignment = session.get_one(Assignment, row.assignment_id, with_for_update={"key_share": True})
    if row.status == "submitted" and assignment.state is AssignmentState.FINISHED:
        assignment.state = AssignmentState.SUBMITTED
    if row.status == "approved" and assignment.state in (AssignmentState.FINISHED, AssignmentState.SUBMITTED):
        assignment.state = AssignmentState.APPROVED
    if row.status in GIVEN_BACK and assignment.state in ACTIVE and not _holds_another(session, row):
        lifecycle.return_place(session, office.clock(), assignment)
    session.flush()


def _holds_another(session: Session, row: MarketplaceSubmission) -> bool:
    same = (
        MarketplaceSubmission.assignment_id == row.assignment_id,
        MarketplaceSubmission.id != row.id,
        MarketplaceSubmission.status.in_(LIVE),
    )
    return session.scalar(select(MarketplaceSubmission.id).where(*same).limit(1)) is not None


def _record_decision(session: Session, office: RecruitingContext, row: MarketplaceSubmission) -> None:
    """Let the books show what the marketplace has decided: paid, or rejected by a person."""
    if row.status not in ("approved", "rejected"):
        return
    opening = posting_of(session, row.opening)
    if opening is None:
        return
    mine = select(Payment).where(Payment.opening_id.is_not(None))
    payment = session.scalar(mine.where(Payment.submission_id == row.id))
    if payment is None and opening.owed_to is not None:
        payment = session.scalar(mine.where(Payment.opening_id == opening.id))
    if row.status == "rejected":
        if payment is not None and payment.state == "pending":
            payment.state = "void"
        return
    if payment is None:
        payment = _record_external_payment(session, office, row, opening)
    payment.submission_id = row.id
    ledger.settle(session, payment, office.clock())


def _record_external_payment(
    session: Session, office: RecruitingContext, row: MarketplaceSubmission, opening: Posting
) -> Payment:
    """What the marketplace paid without us: after its delay it approves by itself, or a person did."""
    assignment = session.get(Assignment, row.assignment_id) if row.assignment_id else None
    kind: Kind = ledger.due(assignment.state, office.config.pay)[0] if assignment else "reward"
    kinds = ledger.settles(assignment.state, office.config.pay) if assignment else ()
    earlier = ledger.find(session, assignment, *kinds) if assignment is not None else None
    if earlier is not None and (earlier.kind, earlier.state, earlier.opening_id) == ("screen_out", "pending", None):
        # A person approved on the marketplace's page what it had refused to screen out for us.
        earlier.opening_id, earlier.cents, earlier.fee_cents = opening.id, opening.reward_cents, opening.fee_cents
        return earlier
    if earlier is not None:
        assignment = None  # they are paid already, for another submission or by a grant for this one
        kind = "paid_again" if earlier.submission_id == row.id else kind
    return ledger.record_pending(
        session,
        assignment,
        kind,
        opening.reward_cents,
        opening.fee_cents,
        office.clock(),
        submission=row,
        opening=opening,
    )


def posting_of(session: Session, market_id: str) -> Posting | None:
    return session.scalar(select(Posting).where(Posting.market_id == market_id).order_by(Posting.id).limit(1))


def _settle_posting(session: Session, office: RecruitingContext, market_id: str, standing: PostingStatus) -> None:
    """An opening is settled when nobody can take or hold a place there and everything submitted is judged."""
    waiting = any(one.status in LIVE for one in standing.submissions)
    if standing.free or standing.held or waiting:
        return
    rows = list(session.scalars(select(Posting).where(Posting.market_id == market_id)))
    if any(row.closed_at is None for row in rows) and not office.recruiter.terms.batch:
        return  # one opening takes all orders: places may be added to it
    for row in rows:
        row.settled_at = office.clock()
