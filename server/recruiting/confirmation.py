"""Confirming runs: a run counts once the marketplace itself has listed its worker and submission.

`sync` confirms what a posting's list shows, and so does the server when it has to ask for one. Everything else that
such a run would cause waits for it: a filled place, the exclusion of the worker, money. A run that the marketplace
never lists goes to a person, who confirms or declines it (`rootnote server confirm`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.assignments import lifecycle
from server.assignments.places import empty_place, fill_place, release_place
from server.audit import study_control
from server.db.enums import RunVerification, SubmissionStatus
from server.db.models import ACTIVE, COMPLETED, Assignment, Listener, MarketplaceSubmission
from server.identity.tokens import TokenSigner
from server.identity.vault import load_identity
from server.payments import ledger
from server.recruiting.context import RecruitingContext
from server.recruiting.marketplaces.base import PostingStatus, ReportedSubmission


def confirm_listed(
    session: Session, signer: TokenSigner, listed: Iterable[ReportedSubmission], *, wait: bool = True
) -> None:
    """Record that the marketplace has listed these submissions, and confirm the runs that belong to them.

    Args:
        wait: False in a listener's request: it leaves alone what `sync` is recording at this moment.
    """
    workers = {signer.submission_key(one.worker, one.id): one.worker for one in listed}
    query = select(MarketplaceSubmission).where(MarketplaceSubmission.key.in_(workers))
    if not wait:
        query = query.where(~MarketplaceSubmission.listed)
    # A submission is locked before its assignment, everywhere.
    locked = query.order_by(MarketplaceSubmission.id).with_for_update(skip_locked=not wait)
    for row in session.scalars(locked).all():
        row.listed = True
        if row.assignment_id is not None:
            confirm(session, row.assignment_id, signer.worker_hash(workers[row.key]))
    session.flush()


def confirm(session: Session, number: int, worker_hash: str) -> bool:
    """Confirm a run as this worker's; False if another run of the same worker is confirmed already."""
    # The same lock as for a submission: the listener may be finishing at this moment.
    assignment = session.get_one(Assignment, number, with_for_update={"key_share": True})
    if assignment.verification is not RunVerification.CONFIRMED:
        if assignment.listener.worker_hash != worker_hash:
            if not lifecycle.release_claim(session, worker_hash):
                return False
            assignment.listener.worker_hash = worker_hash
        assignment.verification = RunVerification.CONFIRMED
    if assignment.state in COMPLETED:
        fill_place(session, assignment)
    session.flush()
    return True


def is_of_known_worker() -> ColumnElement[bool]:
    """The condition that a submission's worker is real: the marketplace has listed it, or the run is confirmed."""
    confirmed = select(Assignment.id).where(Assignment.verification == RunVerification.CONFIRMED)
    return MarketplaceSubmission.listed | MarketplaceSubmission.assignment_id.in_(confirmed)


def release_unlisted(session: Session, context: RecruitingContext, postings: Mapping[str, PostingStatus]) -> None:
    """Free the places of unconfirmed runs that the marketplace would list, and does not: nobody took a place there."""
    if not context.marketplace.capabilities.lists_held:
        return
    before = context.clock() - context.margin
    query = select(MarketplaceSubmission, Assignment).join(
        Assignment, MarketplaceSubmission.assignment_id == Assignment.id
    )
    found = query.where(
        MarketplaceSubmission.opening.in_(postings),
        ~MarketplaceSubmission.listed,
        MarketplaceSubmission.seen_at <= before,
        Assignment.verification == RunVerification.UNCONFIRMED,
    )
    for row, assignment in session.execute(found).all():
        if row.status == SubmissionStatus.HELD:
            row.status = SubmissionStatus.TIMED_OUT
        release_place(session, assignment)


def record_listing(
    session: Session, context: RecruitingContext, postings: Mapping[str, PostingStatus], began: datetime
) -> None:
    """Update the standing of runs from a snapshot of the marketplace."""
    for status in postings.values():
        confirm_listed(session, context.signer, status.submissions)
    release_unlisted(session, context, postings)


# ------------------------------------------------------------------ what goes to a person


@dataclass(frozen=True)
class UnconfirmedWork:
    """A run that ended and would be paid, but that the marketplace has not listed; `cents`: what it would be owed."""

    pseudonym: str
    state: str
    cents: int


def is_payable(context: RecruitingContext, assignment: Assignment) -> bool:
    """Whether money may be owed for a run: the marketplace has listed it, or lists nobody and it is not declined."""
    if context.marketplace.capabilities.lists_submissions:
        return assignment.verification is RunVerification.CONFIRMED
    return assignment.verification is not RunVerification.UNCONFIRMED


def unconfirmed_work(session: Session, context: RecruitingContext) -> list[UnconfirmedWork]:
    """The runs that ended without being listed, and that would be owed something."""
    if not context.marketplace.capabilities.lists_submissions:
        return []
    ended = select(Assignment).where(Assignment.state.not_in(ACTIVE)).order_by(Assignment.id)
    found = []
    for assignment in session.scalars(ended.where(Assignment.verification != RunVerification.CONFIRMED)):
        amount = ledger.due(assignment.state, context.config.pay)[1]
        declined = ledger.is_rejected(ledger.submissions_of(session, assignment))
        if amount and not declined and not is_payable(context, assignment):
            found.append(UnconfirmedWork(assignment.pseudonym, assignment.state.value, amount))
    return found


def decide(context: RecruitingContext, pseudonym: str, who: str, reason: str, *, decline: bool) -> None:
    """Confirm a run by hand, or decline it: then it neither counts nor is owed anything.

    Raises:
        RootnoteError: if there is no such run, its identity is gone, or its worker has a confirmed run.
    """
    with context.writing() as session:
        named = (Assignment.pseudonym == pseudonym) | (Listener.pseudonym == pseudonym)  # the desk shows the latter
        runs = select(Assignment).join(Listener, Assignment.listener_id == Listener.id)
        assignment = session.scalar(runs.where(named))
        if assignment is None:
            raise RootnoteError(f"there is no assignment {pseudonym}; `rootnote server sync` and the desk list them.")
        if decline:
            _decline(session, assignment)
        else:
            identity = load_identity(session, context.vault, assignment.listener)
            if identity is None or identity.worker is None:
                raise RootnoteError(f"no identity of assignment {pseudonym} is stored, so nobody can be confirmed.")
            if not confirm(
                session, assignment.id, context.signer.worker_hash(context.marketplace.spell_id(identity.worker))
            ):
                raise RootnoteError(f"the worker of assignment {pseudonym} has another run, which is confirmed.")
        what = "declined a run" if decline else "confirmed a run"
        study_control.write_log(session, who, what, context.clock(), detail=assignment.pseudonym, reason=reason)


def _decline(session: Session, assignment: Assignment) -> None:
    rows = ledger.submissions_of(session, assignment)
    if any(row.listed for row in rows):
        raise RootnoteError(
            f"the marketplace has listed assignment {assignment.pseudonym}; reject the work there if you must."
        )
    for row in rows:
        row.status = SubmissionStatus.REJECTED
    assignment.verification, assignment.listener.worker_hash = RunVerification.UNCONFIRMED, None
    empty_place(session, assignment)  # filled already, where nothing lists runs
