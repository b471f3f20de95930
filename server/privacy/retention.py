"""Retention: when identities are due to be deleted, and deleting them for good.

`privacy.identity_days` of study.toml counts from the last payment, or from the closing where that came later. Until
the study is closed and everybody is paid nothing is due: without an id nobody could be paid, or told from somebody who
comes twice. What goes then is the vault, the keyed hashes of workers and of what they handed in, and everything that
follows from them: the addresses of those who came by name, and completion codes, which a marketplace can join to a
person. A code's keyed hash stays, so that its owner alone can still have their answers erased.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, func, or_, select
from sqlalchemy.orm import Session

from server.assignments.experiment import Clock
from server.audit import study_control
from server.db import database
from server.db.models import ACTIVE, Assignment, Listener, MarketplaceSubmission, Payment, Place, Posting, VaultEntry
from server.identity.tokens import TokenSigner
from server.payments import ledger
from server.privacy import erasure
from study.config import StudyConfig

SERVER = "(server)"


@dataclass(frozen=True)
class RetentionStatus:
    """Where the deletion of identities stands.

    `kept`: people of whom something still tells who they are; `due`: when that goes, None while it is not known and
    `waiting` says for what; `purged` and `purged_at`: how many are deleted so far, and when last.
    """

    kept: int
    due: datetime | None
    waiting: str
    purged: int
    purged_at: datetime | None


def status(session: Session, config: StudyConfig, now: datetime) -> RetentionStatus:
    """Where the deletion of identities stands."""
    found, waiting = study_control.control(session), _waiting_for(session, config, now)
    due = None if waiting else _last_event(session) + timedelta(days=config.privacy.identity_days)
    return RetentionStatus(len(_named(session)), due, waiting, found.purged, found.purged_at)


def blocked(session: Session, now: datetime) -> str:
    """Why identities may not go at all, whoever asks: something is under way that needs them; "" where nothing is."""
    found, launch = study_control.control(session), ledger.launch(session)
    if found.recruiting or (found.closed_at is None and (launch is None or launch.closed_at is None)):
        return "the study is not closed"
    held = select(Place.id).where(Place.assignment_id.is_not(None), ~Place.filled, Place.expires_at > now)
    if session.scalar(held.limit(1)) is not None:
        return "somebody is listening still"
    if ledger.pending(session):
        return "payments are in doubt (`rootnote server sync`)"
    if session.scalar(select(Posting.id).where(Posting.settled_at.is_(None)).limit(1)) is not None:
        return "openings at the marketplace are not settled (`rootnote server sync`)"
    return ""


def owed(session: Session, config: StudyConfig) -> int:
    """How many people of the launch are not paid; without a launch nobody is in our books."""
    if ledger.launch(session) is None:
        return 0
    ended = session.scalars(select(Assignment).where(Assignment.state.not_in(ACTIVE))).all()
    return sum(not erasure.is_settled(session, one, config.pay) for one in ended)


def _waiting_for(session: Session, config: StudyConfig, now: datetime) -> str:
    """What must happen before identities are due; "" where nothing must."""
    if found := blocked(session, now):
        return found
    number = owed(session, config)
    return f"{number} people are not paid (`rootnote server pay`)" if number else ""


def _last_event(session: Session) -> datetime:
    """When the last payment was made, or the study closed."""
    launch = ledger.launch(session)
    moments = [
        study_control.control(session).closed_at,
        launch.closed_at if launch else None,
        session.scalar(select(func.max(Payment.paid_at))),
    ]
    return max(moment for moment in moments if moment is not None)


def _named(session: Session) -> list[Listener]:
    """Listeners of whom something tells who they are."""
    sealed = select(VaultEntry.pseudonym)
    return list(
        session.scalars(select(Listener).where(or_(Listener.worker_hash.is_not(None), Listener.pseudonym.in_(sealed))))
    )


# ------------------------------------------------------------------ deleting


def purge(session: Session, door: TokenSigner, now: datetime, who: str, reason: str = "") -> int:
    """Delete everything that tells who anybody is; of how many people it was."""
    found = study_control.control(session, lock=True)
    people = _named(session)
    numbers = {one.id for one in people}
    session.execute(delete(VaultEntry))
    for listener in people:
        listener.worker_hash = None
    for row in session.scalars(select(MarketplaceSubmission)):
        row.key = secrets.token_hex(32)
    _unname_payments(session)
    for assignment in session.scalars(select(Assignment)):
        if assignment.listener_id in numbers:  # an address that follows from a name; others are random
            assignment.entry_hash, assignment.token_hash = secrets.token_hex(32), secrets.token_hex(32)
        if not assignment.completion_code.startswith("~"):
            assignment.completion_code = door.hidden_code(assignment.completion_code)
    found.purged, found.purged_at = found.purged + len(people), now
    study_control.write_log(session, who, "purged identities", now, detail=f"{len(people)} people", reason=reason)
    session.flush()
    return len(people)


def _unname_payments(session: Session) -> None:
    """Draw anew what a marketplace shows beside a worker's id: marks of payments, and of places made for one worker."""
    for payment in session.scalars(select(Payment)):
        payment.token = f"paid-{secrets.token_hex(12)}"
    for opening in session.scalars(select(Posting).where(Posting.owed_to.is_not(None))):
        other = f"gone-{secrets.token_hex(12)}"
        for row in session.scalars(
            select(MarketplaceSubmission).where(MarketplaceSubmission.opening == opening.market_id)
        ):
            row.opening = other
        opening.token = opening.market_id = other


def purge_automatically(engine: Engine, config: StudyConfig, door: TokenSigner, clock: Clock) -> int:
    """Do what is due: forget the erased who are paid, and everybody once their time has come; how many went."""
    with database.reading(engine) as session:
        if not _has_work(session, config, clock()):
            return 0
    with database.writing(engine) as session, session.begin():
        study_control.control(session, lock=True)  # of several processes one does it, and the rest find it done
        gone = erasure.forget_the_erased(session, config.pay)
        state = status(session, config, clock())
        if state.due is not None and state.due <= clock() and state.kept:
            reason = f"{config.privacy.identity_days:g} days after the last payment"
            gone += purge(session, door, clock(), SERVER, reason)
    return gone


def _has_work(session: Session, config: StudyConfig, now: datetime) -> bool:
    erased = select(VaultEntry.pseudonym).join(Listener, Listener.pseudonym == VaultEntry.pseudonym).join(Assignment)
    if session.scalar(erased.where(Assignment.erased_at.is_not(None)).limit(1)) is not None:
        return True
    if not _named(session):
        return False
    state = status(session, config, now)
    return state.due is not None and state.due <= now and state.kept > 0
