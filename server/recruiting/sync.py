"""Synchronise our records with the marketplace: one pass of `rootnote server sync`.

Work that the database shows complete is approved. A submission that is not complete here is left to a person; nothing
is rejected automatically.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.db.models import Assignment, MarketplaceSubmission, Place, Posting
from server.identity.vault import load_identity
from server.payments import ledger
from server.recruiting.approvals import approve_complete
from server.recruiting.confirmation import is_of_known_worker
from server.recruiting.context import RecruitingContext, Report
from server.recruiting.direct_payments import reconcile_direct_payments
from server.recruiting.due import PaymentMethod, all_due
from server.recruiting.marketplaces.base import MarketplaceError, OrderRefusedError, UnknownWorkerError
from server.recruiting.postings import (
    allow_more_screen_outs,
    close_postings,
    order_missing_places,
    place_order,
    report_notes,
    unplaced,
)
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
    """Fetch the marketplace's state, exclude earlier participants, approve complete work, order missing places.

    A step that the marketplace refuses keeps none of the others waiting. Work is approved before a posting is closed.

    Raises:
        MarketplaceError: the first refusal, after all steps.
    """
    steps = StepRunner(report)
    is_known = steps.run(lambda: reconcile_postings(context, report)) is not None
    snapshot = record_snapshot(context)
    postings = snapshot.postings
    steps.run(lambda: exclude_all(context, snapshot))
    retried = steps.run(lambda: reconcile_direct_payments(context, report))
    approved = steps.run(lambda: approve_complete(context, snapshot)) if approve else 0
    steps.run(lambda: request_returns(context, snapshot))
    ordered = 0
    if _is_to_close(context):
        steps.run(lambda: close_postings(context, postings))
    elif is_known:  # with an order in unknown state, another could be one too many
        steps.run(lambda: allow_more_screen_outs(context, postings, report))
        ordered = steps.run(lambda: order_missing_places(context, postings, report)) or 0
        report_notes(context, postings, report)
    steps.raise_refusal()
    return SyncResult(approved or 0, retried or 0, ordered)


class StepRunner:
    """Runs the steps of a pass; a refusal is kept until all are done, and reported if it is not the first."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._refusal: MarketplaceError | None = None

    def run(self, step: Callable[[], Any]) -> Any:
        """What a step gives; None if the marketplace refused it."""
        try:
            return step()
        except MarketplaceError as error:
            if self._refusal is None:
                self._refusal = error
            else:
                self._report(str(error))
            return None

    def raise_refusal(self) -> None:
        """Raise the first refusal, if there was one."""
        if self._refusal is not None:
            raise self._refusal


def reconcile_postings(context: RecruitingContext, report: Report = print) -> int:
    """Find or place every order in unknown state; returns how many there were."""
    with context.reading() as session:
        numbers = unplaced(session)
    for number in numbers:
        try:
            with contextlib.suppress(UnknownWorkerError):
                place_order(context, number)
        except OrderRefusedError as error:
            report(str(error))
    return len(numbers)


def request_returns(context: RecruitingContext, snapshot: MarketplaceSnapshot) -> None:
    """Ask for the return of submitted places whose listeners are paid after it, once each."""
    with context.reading() as session:
        due = [one for one in all_due(session, context) if one.method is PaymentMethod.WAIT and one.submission]
        keys = [session.get_one(MarketplaceSubmission, one.submission).key for one in due]
    for key in keys:
        submission = snapshot.submissions.get(key)
        if submission is not None and not submission.return_requested:
            context.marketplace.request_return(submission, "")


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
