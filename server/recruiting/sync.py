"""Bring the marketplace and our records together: one pass of `rootnote server sync`.

Work that the database shows complete is approved. A submission that is not complete here is left to a person; nothing
is rejected automatically.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.models import (
    Assignment,
    MarketplaceSubmission,
    Place,
    Posting,
)
from server.identity.vault import recall
from server.payments import ledger
from server.recruiting.approvals import approve_complete
from server.recruiting.grants import reconcile_grants
from server.recruiting.launch import RecruitingContext, Tell, close_openings, place_order, top_up, unplaced
from server.recruiting.marketplaces.base import (
    UnknownWorkerError,
)
from server.recruiting.snapshot import MarketplaceSnapshot, record_snapshot


def _is_to_close(office: RecruitingContext) -> bool:
    """Whether nobody new is wanted: closed by a person, or every place is filled."""
    with office.reading() as session:
        launch = ledger.launch(session)
        unfilled = session.scalar(select(Place.id).where(~Place.filled).limit(1))
    return launch is not None and (launch.closed_at is not None or unfilled is None)


@dataclass(frozen=True)
class SyncResult:
    """What a synchronisation did: work approved, grants in doubt sent again, places ordered."""

    approved: int
    granted: int
    ordered: int


def synchronize(office: RecruitingContext, *, approve: bool = True, tell: Tell = print) -> SyncResult:
    """Bring the marketplace and the books together: find out, mark, approve what is complete, order what is missing."""
    reconcile_postings(office)
    if _is_to_close(office):
        close_openings(office)
    sight = record_snapshot(office)
    exclude_all(office, sight)
    granted = reconcile_grants(office, tell)
    approved = approve_complete(office, sight) if approve else 0
    ordered = top_up(office, sight.standings, tell)
    return SyncResult(approved, granted, ordered)


def reconcile_postings(office: RecruitingContext) -> None:
    """Find or place every order of which it is not known whether it was placed."""
    with office.reading() as session:
        numbers = unplaced(session)
    for number in numbers:
        with contextlib.suppress(UnknownWorkerError):
            place_order(office, number)


def is_over(session: Session) -> bool:
    """Whether every place is filled and nothing waits to be paid or settled."""
    waiting = select(Posting.id).where(Posting.settled_at.is_(None)).limit(1)
    unfilled = select(Place.id).where(~Place.filled).limit(1)
    return session.scalar(unfilled) is None and session.scalar(waiting) is None and not ledger.pending(session)


def exclude_all(office: RecruitingContext, sight: MarketplaceSnapshot) -> None:
    """Mark everybody who took a place, so that none is offered another."""
    with office.reading() as session:
        launch = ledger.launch(session)
        query = select(MarketplaceSubmission).where(~MarketplaceSubmission.excluded)
        rows = [(row.id, row.key, row.assignment_id) for row in session.scalars(query)]
    assert launch is not None
    for number, key, assignment in rows:
        worker = _worker_of(office, sight, key, assignment)
        if worker:
            with contextlib.suppress(UnknownWorkerError):  # anybody may write any id into an address
                office.recruiter.exclude(worker, launch.name)
        with office.writing() as session:
            session.get_one(MarketplaceSubmission, number).excluded = True


def _worker_of(office: RecruitingContext, sight: MarketplaceSnapshot, key: str, assignment: int | None) -> str | None:
    if key in sight.told:
        return sight.told[key].worker
    if assignment is None:
        return None
    with office.reading() as session:
        who = recall(session, office.vault, session.get_one(Assignment, assignment).listener)
    return who.worker if who else None
