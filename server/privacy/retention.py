"""Retention: when identities are due for deletion, and deleting them permanently.

`privacy.identity_days` of study.toml counts from the last payment, or from the closing if that was later. Nothing is
due until the study is closed and everyone is paid, because without an id nobody could be paid, or recognised when they
come a second time. A purge deletes the vault, the keyed hashes of workers and submissions, and everything derived from
them: the page addresses of listeners who came with a marketplace id, and completion codes, which a marketplace can link
to a person. The keyed hash of a code remains, so that only its owner can still have their answers erased.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, func, or_, select
from sqlalchemy.orm import Session

from embeddings.wording import counted
from server.assignments.experiment import Clock
from server.audit import study_control
from server.db import database
from server.db.models import ACTIVE, Assignment, Listener, MarketplaceSubmission, Payment, Place, Posting, VaultEntry
from server.identity.tokens import TokenSigner
from server.payments import ledger
from server.privacy import erasure
from study.config import StudyConfig

SERVER = "(server)"
IDENTIFYING = (VaultEntry, Listener, MarketplaceSubmission, Assignment, Payment, Posting)  # what a purge changes


@dataclass(frozen=True)
class RetentionStatus:
    """The state of the deletion of identities.

    `stored`: listeners who can still be identified; `due`: when their identities are deleted, None while `waiting` says
    what must happen first; `purged` and `purged_at`: how many have been deleted, and when last.
    """

    stored: int
    due: datetime | None
    waiting: str
    purged: int
    purged_at: datetime | None


def status(session: Session, config: StudyConfig, now: datetime) -> RetentionStatus:
    """The state of the deletion of identities."""
    control, waiting = study_control.control(session), _waiting_for(session, config, now)
    due = None if waiting else _last_event(session) + timedelta(days=config.privacy.identity_days)
    return RetentionStatus(len(_identifiable(session)), due, waiting, control.purged, control.purged_at)


def blocking_reason(session: Session, config: StudyConfig, now: datetime) -> str:
    """Why identities cannot be deleted now, even on request; "" if they can."""
    control, launch = study_control.control(session), ledger.launch(session)
    if control.recruiting or (control.closed_at is None and (launch is None or launch.closed_at is None)):
        return "the study is not closed"
    held = select(Place.id).where(Place.assignment_id.is_not(None), ~Place.filled, Place.expires_at > now)
    if session.scalar(held.limit(1)) is not None:
        return "a listener is still taking part"
    if ledger.pending(session):
        return "payments are in an unknown state (run `rootnote server sync`)"
    if session.scalar(select(Posting.id).where(Posting.settled_at.is_(None)).limit(1)) is not None:
        return "postings at the marketplace are not settled (run `rootnote server sync`)"
    if calls := len(erasure.needed_for_calls(session, config)):
        number = counted(calls, "call to the panel has", "calls to the panel have")
        return f"{number} no result yet (run `rootnote server sync`, then `rootnote server callbacks`)"
    return ""


def count_unpaid(session: Session, config: StudyConfig) -> int:
    """How many listeners of the launch have not been paid; without a launch, Rootnote pays nobody."""
    if ledger.launch(session) is None:
        return 0
    ended = session.scalars(select(Assignment).where(Assignment.state.not_in(ACTIVE))).all()
    return sum(not erasure.is_settled(session, one, config.pay) for one in ended)


def _waiting_for(session: Session, config: StudyConfig, now: datetime) -> str:
    """The condition that is missing before identities are due; "" if none is."""
    if reason := blocking_reason(session, config, now):
        return reason
    number = count_unpaid(session, config)
    verb = "has" if number == 1 else "have"
    return f"{counted(number, 'listener')} {verb} not been paid (run `rootnote server pay`)" if number else ""


def _last_event(session: Session) -> datetime:
    """When the last payment was made or the study was closed, whichever is later."""
    launch = ledger.launch(session)
    moments = [
        study_control.control(session).closed_at,
        launch.closed_at if launch else None,
        session.scalar(select(func.max(Payment.paid_at))),
    ]
    return max(moment for moment in moments if moment is not None)


def _identifiable(session: Session) -> list[Listener]:
    """Listeners who can still be identified: by an id, its hash, or a hash of their submission at the marketplace."""
    known = [Listener.worker_hash.is_not(None), Listener.pseudonym.in_(select(VaultEntry.pseudonym))]
    if study_control.control(session).purged_at is None:  # a purge replaces the hashes of all submissions
        arrived = select(MarketplaceSubmission.assignment_id).where(MarketplaceSubmission.assignment_id.is_not(None))
        known.append(Listener.id.in_(select(Assignment.listener_id).where(Assignment.id.in_(arrived))))
    return list(session.scalars(select(Listener).where(or_(*known))))


# ------------------------------------------------------------------ deleting


def purge(session: Session, signer: TokenSigner, now: datetime, who: str, reason: str = "") -> int:
    """Delete everything that identifies listeners; returns how many were identifiable."""
    control = study_control.control(session, lock=True)
    listeners = _identifiable(session)
    ids = {listener.id for listener in listeners}
    session.execute(delete(VaultEntry))
    for listener in listeners:
        listener.worker_hash = None
    for row in session.scalars(select(MarketplaceSubmission)):
        row.key = secrets.token_hex(32)
    _replace_payment_tokens(session)
    for assignment in session.scalars(select(Assignment)):
        if assignment.listener_id in ids:  # derived from the worker id; others are random
            assignment.entry_hash, assignment.token_hash = secrets.token_hex(32), secrets.token_hex(32)
        if not assignment.completion_code.startswith("~"):
            assignment.completion_code = signer.hidden_code(assignment.completion_code)
    control.purged, control.purged_at = control.purged + len(listeners), now
    detail = counted(len(listeners), "listener")
    study_control.write_log(session, who, "purged identities", now, detail=detail, reason=reason)
    session.flush()
    return len(listeners)


def _replace_payment_tokens(session: Session) -> None:
    """Replace what a marketplace shows next to a worker's id: tokens of payments, and of postings for one worker."""
    for payment in session.scalars(select(Payment)):
        payment.token = f"paid-{secrets.token_hex(12)}"
    for posting in session.scalars(select(Posting).where(Posting.owed_to.is_not(None))):
        replacement = f"gone-{secrets.token_hex(12)}"
        submissions = select(MarketplaceSubmission).where(MarketplaceSubmission.opening == posting.market_id)
        for submission in session.scalars(submissions):
            submission.opening = replacement
        posting.token = posting.market_id = replacement


def purge_automatically(engine: Engine, config: StudyConfig, signer: TokenSigner, clock: Clock) -> int:
    """Delete the identities that are due: of erased listeners who are paid, and of everyone after the retention period.

    Returns:
        How many were deleted.
    """
    with database.reading(engine) as session:
        if not _has_work(session, config, clock()):
            return 0
    with database.writing(engine) as session, session.begin():
        study_control.control(session, lock=True)  # one process does it; the others then find it done
        deleted = erasure.delete_erased_identities(session, config)
        state = status(session, config, clock())
        if state.due is not None and state.due <= clock() and state.stored:
            reason = f"{config.privacy.identity_days:g} days after the last payment"
            deleted += purge(session, signer, clock(), SERVER, reason)
    return deleted


def _has_work(session: Session, config: StudyConfig, now: datetime) -> bool:
    erased = select(VaultEntry.pseudonym).join(Listener, Listener.pseudonym == VaultEntry.pseudonym).join(Assignment)
    if session.scalar(erased.where(Assignment.erased_at.is_not(None)).limit(1)) is not None:
        return True
    if not _identifiable(session):
        return False
    state = status(session, config, now)
    return state.due is not None and state.due <= now and state.stored > 0
