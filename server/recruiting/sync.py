"""Synchronise our records with the marketplace: one pass of `rootnote server sync`.

Work that the database shows complete is approved. A submission that is not complete here is left to a person; nothing
is rejected automatically.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.models import Assignment, MarketplaceSubmission, Place, Posting
from server.identity.vault import load_identity
from server.payments import ledger
from server.recruiting.approvals import approve_complete
from server.recruiting.confirmation import is_of_known_worker
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.direct_payments import reconcile_direct_payments
from server.recruiting.marketplaces.base import UnknownWorkerError
from server.recruiting.postings import close_postings, order_missing_places, place_order, unplaced
from server.recruiting.snapshot import MarketplaceSnapshot, record_snapshot


def _is_to_close(context: RecruitingContext) -> bool:
    """Whether no new listener is needed: the launch was closed, or every place is filled."""
    with context.reading() as session:
        launch = ledger.launch(session)
        unfilled = session.scalar(select(Place.id).where(~Place.filled).limit(1))
    return launch is not None and (launch.closed_at is not None or unfilled is None)


@dataclass(frozen=True)
class SyncResult:
    """The result of one pass: submissions approved, payments in unknown state retried, places ordered."""

    approved: int
    retried: int
    ordered: int


def synchronize(context: RecruitingContext, *, approve: bool = True, report: Report = print) -> SyncResult:
    """Fetch the marketplace's state, exclude earlier participants, approve complete work, order missing places."""
    reconcile_postings(context)
    if _is_to_close(context):
        close_postings(context)
    snapshot = record_snapshot(context)
    exclude_all(context, snapshot)
    retried = reconcile_direct_payments(context, report)
    approved = approve_complete(context, snapshot) if approve else 0
    ordered = order_missing_places(context, snapshot.postings, report)
    return SyncResult(approved, retried, ordered)


def reconcile_postings(context: RecruitingContext) -> None:
    """Find or place every order in unknown state."""
    with context.reading() as session:
        numbers = unplaced(session)
    for number in numbers:
        with contextlib.suppress(UnknownWorkerError):
            place_order(context, number)


def is_over(session: Session) -> bool:
    """Whether every place is filled and nothing is waiting to be paid or settled."""
    waiting = select(Posting.id).where(Posting.settled_at.is_(None)).limit(1)
    unfilled = select(Place.id).where(~Place.filled).limit(1)
    return session.scalar(unfilled) is None and session.scalar(waiting) is None and not ledger.pending(session)


def exclude_all(context: RecruitingContext, snapshot: MarketplaceSnapshot) -> None:
    """Exclude every worker whom the marketplace has listed, so that none is offered another place."""
    with context.reading() as session:
        launch = ledger.launch(session)
        query = select(MarketplaceSubmission).where(~MarketplaceSubmission.excluded, is_of_known_worker())
        rows = [(row.id, row.key, row.assignment_id) for row in session.scalars(query)]
    assert launch is not None
    for number, key, assignment in rows:
        worker = _worker_of(context, snapshot, key, assignment)
        if worker:
            with contextlib.suppress(UnknownWorkerError):  # anyone can write any id into an address
                context.marketplace.exclude(worker, launch.name)
        with context.writing() as session:
            session.get_one(MarketplaceSubmission, number).excluded = True


def _worker_of(
    context: RecruitingContext, snapshot: MarketplaceSnapshot, key: str, assignment: int | None
) -> str | None:
    if key in snapshot.submissions:
        return snapshot.submissions[key].worker
    if assignment is None:
        return None
    with context.reading() as session:
        who = load_identity(session, context.vault, session.get_one(Assignment, assignment).listener)
    return who.worker if who else None
