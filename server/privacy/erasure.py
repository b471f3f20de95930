"""Erasure: deleting a listener's answers at their request, and keeping them deleted.

Erasure deletes answers, telemetry, the prescreen, the questionnaire and the times in between. A bare row remains, with
the time of consent and how the run ended, because payments refer to it. The encrypted worker id remains until nothing
is owed to the listener; the keyed hash that prevents taking part twice remains until identities are purged
(server.privacy.retention).

Every erasure is first recorded in a journal outside the database, by the run's random pseudonym. A backup does not
contain later erasures, so the journal is replayed whenever the server starts, and whenever a command opens the study
and writes to the log. ROOTNOTE_ERASURES names the journal (default: erasures.jsonl in the study's folder); keep a copy
of it with the backups.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.audit import study_control
from server.db import append_only
from server.db.enums import LIVE, CallbackState, RunVerification
from server.db.models import (
    ACTIVE,
    Answer,
    Assignment,
    AssignmentState,
    ClipDelivery,
    Listener,
    MarketplaceSubmission,
    Payment,
    Place,
    PrescreenItem,
    PrescreenResult,
    Response,
    StudyRecord,
    VaultEntry,
)
from server.db.panel_models import PanelCallback
from server.payments import ledger
from study.config import StudyConfig
from study.config_sections import PayConfig

LISTENER = "(listener)"
REPLAYED = "(journal)"
DELETED = (Response, Answer, PrescreenItem, PrescreenResult, ClipDelivery)


@dataclass(frozen=True)
class Journal:
    """The append-only file of erasures: one JSON object per line."""

    path: Path

    def record(self, pseudonym: str, at: datetime) -> None:
        """Append an erasure and flush it to disk.

        Raises:
            RootnoteError: if the file cannot be written; then nothing may be erased.
        """
        line = f"{json.dumps({'assignment': pseudonym, 'at': at.astimezone(UTC).isoformat()})}\n".encode()
        try:
            append_only.append(self.path, line, sync=True)
        except OSError as error:
            raise RootnoteError(
                f"the journal of erasures {self.path} cannot be written ({error.strerror}); "
                "make it writable, or name another file in ROOTNOTE_ERASURES."
            ) from None

    def read(self) -> Iterator[tuple[str, datetime]]:
        """Every erasure: the run's pseudonym, and when.

        Raises:
            RootnoteError: if the file cannot be read, or a line other than the last is damaged.
        """
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise RootnoteError(f"the journal of erasures {self.path} cannot be read: {error}.") from None
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                yield str(entry["assignment"]), datetime.fromisoformat(entry["at"])
            except (ValueError, KeyError, TypeError):
                if number < len(lines):  # the last line may be incomplete: its erasure was never confirmed
                    raise RootnoteError(
                        f"line {number} of the journal of erasures {self.path} is damaged; correct it by hand."
                    ) from None

    def merge(self, other: Journal) -> int:
        """Add the erasures that only another journal contains; returns how many."""
        known, others = dict(self.read()), list(other.read())
        missing = [(pseudonym, at) for pseudonym, at in others if pseudonym not in known]
        for pseudonym, at in missing:
            self.record(pseudonym, at)
        return len(missing)


# ------------------------------------------------------------------ erasing


def erase(
    session: Session, journal: Journal | None, assignment: Assignment, now: datetime, who: str, reason: str = ""
) -> bool:
    """Delete a listener's answers; False if they were erased before.

    Args:
        journal: None only while the journal itself is replayed, or for a study without real listeners.

    Raises:
        RootnoteError: if the journal cannot be written; then nothing is deleted.
    """
    if assignment.erased_at is not None:
        return False
    if journal is not None:
        journal.record(assignment.pseudonym, now)
    for table in DELETED:
        session.execute(delete(table).where(table.assignment_id == assignment.id))
    if assignment.state in ACTIVE:
        _free_place(session, assignment)
        assignment.state, assignment.ended_at = AssignmentState.WITHDRAWN, now
    assignment.screened_at = assignment.listening_at = assignment.ended_at = None
    assignment.erased_at = now
    study_control.write_log(
        session, who, "erased a listener's answers", now, detail=assignment.pseudonym, reason=reason
    )
    return True


def _free_place(session: Session, assignment: Assignment) -> None:
    place = session.scalar(select(Place).where(Place.assignment_id == assignment.id, ~Place.filled))
    if place is not None:
        place.assignment_id = place.expires_at = None


def replay(session: Session, journal: Journal, now: datetime) -> int:
    """Repeat erasures that a restored database does not contain; returns how many."""
    erased = dict(journal.read())
    if not erased:
        return 0
    restored = select(Assignment).where(Assignment.pseudonym.in_(erased), Assignment.erased_at.is_(None))
    restored = restored.order_by(Assignment.id).with_for_update()
    return sum(erase(session, None, one, now, REPLAYED) for one in session.scalars(restored).all())


# ------------------------------------------------------------------ identities


def delete_erased_identities(session: Session, config: StudyConfig) -> int:
    """Delete the encrypted identities of erased listeners that no payment and no call needs; returns how many."""
    erased = select(Assignment).where(Assignment.erased_at.is_not(None))
    called = needed_for_calls(session, config)
    settled = [one for one in session.scalars(erased) if one.id not in called and is_settled(session, one, config.pay)]
    rows = [row for one in settled if (row := session.get(VaultEntry, one.listener.pseudonym)) is not None]
    for row in rows:
        session.delete(row)
    session.flush()
    return len(rows)


def needed_for_calls(session: Session, config: StudyConfig) -> set[int]:
    """The runs whose identity is still needed to tell the panel's server that they finished; a rehearsal tells none."""
    if not getattr(config.recruiter.settings, "callback_url", "") or session.scalar(select(StudyRecord.rehearsal)):
        return set()
    done = select(PanelCallback.assignment_id).where(PanelCallback.state == CallbackState.DONE)
    query = select(Assignment).join(Listener, Assignment.listener_id == Listener.id)
    query = query.where(Listener.pseudonym.in_(select(VaultEntry.pseudonym)), Assignment.id.not_in(done))
    return {one.id for one in session.scalars(query) if ledger.outcome(one.state, config.pay) == "finished"}


def is_settled(session: Session, assignment: Assignment, pay: PayConfig) -> bool:
    """Whether nothing is owed to this listener, and no submission of theirs is open at a marketplace."""
    open_submission = select(MarketplaceSubmission.id).where(
        MarketplaceSubmission.assignment_id == assignment.id, MarketplaceSubmission.status.in_(LIVE)
    )
    if assignment.state in ACTIVE or session.scalar(open_submission.limit(1)) is not None:
        return False
    payments = list(session.scalars(select(Payment).where(Payment.assignment_id == assignment.id)))
    if any(one.state == "pending" for one in payments):
        return False
    if assignment.verification is RunVerification.UNCONFIRMED or ledger.owed(assignment, payments, pay) is None:
        return True
    return ledger.is_rejected(ledger.submissions_of(session, assignment))
