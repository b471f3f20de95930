"""Erasure: deleting what a listener answered, at their wish, and keeping it deleted.

What goes: answers, telemetry, prescreen, questions, the times between. What stays of a run is a bare row with the time
of consent and how it ended, because payments hang on it; the worker's id stays sealed until nothing is owed for it,
and the keyed hash that lets nobody take part twice until identities are purged (server.privacy.retention).

Every erasure is first written into a journal outside the database, by the run's random pseudonym. A backup knows
nothing of what was erased after it was made, so the journal is replayed whenever the server starts, or a command opens
the study that writes into the log: the erased stay erased. ROOTNOTE_ERASURES says where the journal lies (default:
erasures.jsonl in the study's folder); it belongs beside the backups.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.audit import study_control
from server.db.enums import LIVE
from server.db.models import (
    ACTIVE,
    Answer,
    Assignment,
    AssignmentState,
    ClipDelivery,
    MarketplaceSubmission,
    Payment,
    Place,
    PrescreenItem,
    PrescreenResult,
    Response,
    VaultEntry,
)
from server.payments import ledger
from study.config_sections import PayConfig

LISTENER = "(listener)"
REPLAYED = "(journal)"
DELETED = (Response, Answer, PrescreenItem, PrescreenResult, ClipDelivery)


@dataclass(frozen=True)
class Journal:
    """Erasures in a file of their own: one JSON object a line, added only."""

    path: Path

    def note(self, pseudonym: str, at: datetime) -> None:
        """Write down an erasure, to the disk.

        Raises:
            RootnoteError: where the file cannot be written; nothing may be erased then.
        """
        line = f"{json.dumps({'assignment': pseudonym, 'at': at.astimezone(UTC).isoformat()})}\n".encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(number, fcntl.LOCK_EX)
                _belong_to_folder(number, self.path)
                whole = _cut_tail(number)
                if os.write(number, line) != len(line):
                    os.ftruncate(number, whole)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(number)
            finally:
                os.close(number)
        except OSError as error:
            raise RootnoteError(
                f"the journal of erasures {self.path} cannot be written ({error.strerror}); "
                "ROOTNOTE_ERASURES says where it lies."
            ) from None

    def read(self) -> Iterator[tuple[str, datetime]]:
        """Every erasure: the run's pseudonym and when.

        Raises:
            RootnoteError: where the file cannot be read, or a line but the last is damaged.
        """
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise RootnoteError(f"the journal of erasures {self.path} cannot be read: {error}.") from None
        for number, line in enumerate(lines, start=1):
            try:
                told = json.loads(line)
                yield str(told["assignment"]), datetime.fromisoformat(told["at"])
            except (ValueError, KeyError, TypeError):
                if number < len(lines):  # a last line may be cut short: its erasure was never confirmed
                    raise RootnoteError(
                        f"line {number} of the journal of erasures {self.path} is damaged; mend it by hand."
                    ) from None

    def add(self, other: Journal) -> int:
        """Note what another journal holds and this one does not; how much it was."""
        known, before = dict(self.read()), list(other.read())
        missing = [(pseudonym, at) for pseudonym, at in before if pseudonym not in known]
        for pseudonym, at in missing:
            self.note(pseudonym, at)
        return len(missing)


def _cut_tail(number: int) -> int:
    """Take away a last line that was cut short, whose erasure was never confirmed; the size that remains."""
    size = os.fstat(number).st_size
    whole = os.pread(number, size, 0).rfind(b"\n") + 1
    if whole != size:
        os.ftruncate(number, whole)
    return whole


def _belong_to_folder(number: int, path: Path) -> None:
    """A file that root makes belongs to whose folder it is in, so that the server can go on writing it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(number, owner.st_uid, owner.st_gid)


# ------------------------------------------------------------------ erasing


def erase(
    session: Session, journal: Journal | None, assignment: Assignment, now: datetime, who: str, reason: str = ""
) -> bool:
    """Delete what a listener answered; False where it was done before.

    Args:
        journal: None only where the journal itself is replayed.

    Raises:
        RootnoteError: where the journal cannot be written; nothing is deleted then.
    """
    if assignment.erased_at is not None:
        return False
    if journal is not None:
        journal.note(assignment.pseudonym, now)
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
    """Erase again what a restored database holds; how much it was."""
    wanted = dict(journal.read())
    if not wanted:
        return 0
    again = select(Assignment).where(Assignment.pseudonym.in_(wanted), Assignment.erased_at.is_(None))
    again = again.order_by(Assignment.id).with_for_update()
    return sum(erase(session, None, one, now, REPLAYED) for one in session.scalars(again).all())


# ------------------------------------------------------------------ who they were


def forget_the_erased(session: Session, pay: PayConfig) -> int:
    """Delete the sealed identities of those erased to whom nothing is owed any more; how many were deleted."""
    erased = select(Assignment).where(Assignment.erased_at.is_not(None))
    settled = [one for one in session.scalars(erased) if is_settled(session, one, pay)]
    rows = [row for one in settled if (row := session.get(VaultEntry, one.listener.pseudonym)) is not None]
    for row in rows:
        session.delete(row)
    session.flush()
    return len(rows)


def is_settled(session: Session, assignment: Assignment, pay: PayConfig) -> bool:
    """Whether nothing is owed to this listener, and nothing of theirs waits at a marketplace."""
    mine = select(MarketplaceSubmission.id).where(
        MarketplaceSubmission.assignment_id == assignment.id, MarketplaceSubmission.status.in_(LIVE)
    )
    if assignment.state in ACTIVE or session.scalar(mine.limit(1)) is not None:
        return False
    booked = list(session.scalars(select(Payment).where(Payment.assignment_id == assignment.id)))
    if any(one.state == "pending" for one in booked):
        return False
    if ledger.owed(assignment, booked, pay) is None:
        return True
    return ledger.is_rejected(ledger.submissions_of(session, assignment))
