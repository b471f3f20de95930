"""Events of the marketplace: a place that was returned there is free here at once, and `sync --watch` wakes up.

An event is only a hint, which may come late, twice, in any order or never. It can do one thing by itself: give the
study's place of a held submission to others, as the next look at the marketplace would. Everything else waits for that
look, which an event brings forward; without events, looking from time to time is enough.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from server.db.enums import SubmissionStatus
from server.db.models import MarketplaceSubmission
from server.db.upsert import insert
from server.db.webhook_models import WebhookEvent
from server.identity.tokens import TokenSigner
from server.recruiting.marketplaces.events import ReportedEvent
from server.recruiting.snapshot import GIVEN_BACK, update_assignment_state


def path_of(kind: str) -> str:
    """Where the server receives the events of a marketplace."""
    return f"/hooks/{kind}"


def record_event(session: Session, signer: TokenSigner, event: ReportedEvent, now: datetime) -> bool:
    """Store an event and free the place that it reports as returned; False if the event has come before."""
    id_ = hashlib.sha256(event.id.encode()).hexdigest()
    row = insert(session, WebhookEvent).values(id=id_, kind=event.kind, received_at=now)
    if session.scalar(row.on_conflict_do_nothing().returning(WebhookEvent.id)) is None:
        return False
    if event.status in GIVEN_BACK:
        _give_back(session, signer.submission_key(event.worker, event.submission), event.status, now)
    return True


def _give_back(session: Session, key: str, status: SubmissionStatus, now: datetime) -> None:
    """Free the place of a submission that is held as far as we know; a later state is never undone by an old event."""
    query = select(MarketplaceSubmission).where(MarketplaceSubmission.key == key).with_for_update()
    row = session.scalar(query)
    if row is not None and row.status == SubmissionStatus.HELD:
        row.status = status
        update_assignment_state(session, now, row)


def is_waiting(session: Session) -> bool:
    """Whether an event has come since the last synchronisation began."""
    return session.scalar(select(WebhookEvent.id).where(WebhookEvent.handled_at.is_(None)).limit(1)) is not None


def mark_handled(session: Session, now: datetime) -> None:
    """Note that a synchronisation begins now, which sees whatever the events reported."""
    session.execute(update(WebhookEvent).where(WebhookEvent.handled_at.is_(None)).values(handled_at=now))
