"""The chain of the log: every entry holds the hash of the one before, and is sealed under the server's secret.

An entry's hash is the SHA-256 of its number, time, author, words, the hash before it and the seal of the head that it
was added to; its own seal is an HMAC of the hash under a key made of ROOTNOTE_SECRET, so that whoever can write to the
database alone can forge neither. The head (one row) holds the last number and hash under a seal of its own kind, so
that entries cut off at the end are missed, also once more were added.

Entries from before there was a chain are bound into it by the first one, which holds their number and their hash. Who
owns the database may put it all back to a state of before: an old end with the head that went with it, or the time
before the chain. That is found by an end that was noted elsewhere: `server audit` prints it, every export holds it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.db.database import LOG_SECRET_OPTION
from server.db.models import Assignment, ConsentText, LogEntry, LogHead

BEGAN = "began the log"


@dataclass(frozen=True)
class ChainEnd:
    """Where the log ends: the number and the hash of its last entry; 0 and "" before the first."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


@dataclass(frozen=True)
class Verification:
    """What the check of a log found: how many entries, where it ends, and every fault in one sentence each.

    `began`: when the chain did, None where it has not; `unsealed`: how many entries are from before.
    """

    entries: int
    end: ChainEnd
    faults: tuple[str, ...]
    began: datetime | None = None
    unsealed: int = 0


class ChainKeys:
    """Makes and checks seals under one secret."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"rootnote.log", "sha256")
        self.name = hashlib.sha256(b"rootnote.log.name:" + self._key).hexdigest()[:16]

    def entry(self, digest: str) -> str:
        return self._seal(f"entry:{digest}")

    def head(self, end: ChainEnd) -> str:
        return self._seal(f"head:{end}")

    def _seal(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256").hex()


def seals_of(session: Session) -> ChainKeys:
    """The seals of a session whose engine was connected with the secret.

    Raises:
        RootnoteError: where it was connected without.
    """
    secret = session.get_bind().get_execution_options().get(LOG_SECRET_OPTION)
    if not secret:
        raise RootnoteError(
            "the environment variable ROOTNOTE_SECRET is not set: what this command does is written into the log, "
            "which is sealed by it."
        )
    return ChainKeys(str(secret))


def append(session: Session, who: str, what: str, at: datetime, detail: str, reason: str) -> LogEntry:
    """Add an entry at the log's end; those who add at once follow one another."""
    seals, head = seals_of(session), session.get_one(LogHead, 1, with_for_update=True)
    if head.number == 0:
        _add(session, seals, head, ("(server)", BEGAN, at, _earlier(session), ""))
    return _add(session, seals, head, (who, what, at, detail, reason))


def begin(session: Session, at: datetime) -> None:
    """Begin the chain where it has not begun."""
    seals, head = seals_of(session), session.get_one(LogHead, 1, with_for_update=True)
    if head.number == 0:
        _add(session, seals, head, ("(server)", BEGAN, at, _earlier(session), ""))


def end(session: Session) -> ChainEnd:
    """Where the log ends, by its head."""
    head = session.get_one(LogHead, 1)
    return ChainEnd(head.number, head.hash)


def _add(session: Session, seals: ChainKeys, head: LogHead, told: tuple[str, str, datetime, str, str]) -> LogEntry:
    who, what, at, detail, reason = told
    entry = LogEntry(at=at, who=who, what=what, detail=detail, reason=reason, number=head.number + 1, key=seals.name)
    entry.hash = _hash(entry, head.hash, head.seal)
    entry.seal = seals.entry(entry.hash)
    session.add(entry)
    session.flush()
    head.number, head.hash, head.key = head.number + 1, entry.hash, seals.name
    head.seal = seals.head(ChainEnd(head.number, head.hash))
    session.flush()
    return entry


def _hash(entry: LogEntry, before: str, head: str) -> str:
    told = [entry.number, _moment(entry.at), entry.who, entry.what, entry.detail, entry.reason, before, head]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _earlier(session: Session) -> str:
    """What the first entry says of those before the chain: how many, and their hash."""
    rows = list(session.scalars(select(LogEntry).where(LogEntry.number.is_(None)).order_by(LogEntry.id)))
    return _account(rows)


def _account(rows: Sequence[LogEntry]) -> str:
    told = [[row.id, _moment(row.at), row.who, row.what, row.detail, row.reason] for row in rows]
    return f"{len(rows)} earlier entries, SHA-256 {hashlib.sha256(json.dumps(told).encode()).hexdigest()}"


# ------------------------------------------------------------------ checking


def verify(session: Session, secrets: Sequence[str], noted: ChainEnd | None = None) -> Verification:
    """Read the whole log, in one snapshot, and name everything in it that is not as it was written.

    Args:
        secrets: the present one first, then those of before.
        noted: an end that was written down elsewhere.
    """
    rows = list(session.scalars(select(LogEntry).order_by(LogEntry.id)))
    seals = {one.name: one for one in map(ChainKeys, secrets)}
    faults = [*_row_faults(rows, seals), *_head_faults(session, rows, seals), *_noted_faults(rows, noted)]
    first = next((row for row in rows if row.number == 1), None)
    shown = session.scalar(select(func.min(ConsentText.since)))
    if first is not None and shown is not None and shown < first.at:
        faults.append(f"The log was begun anew at {_moment(first.at)}, when the study was served already.")
    found = end(session) if session.get(LogHead, 1) else ChainEnd(0, "")
    unsealed = sum(row.number is None for row in rows)
    return Verification(len(rows), found, tuple(faults), first.at if first else None, unsealed)


def _row_faults(rows: Sequence[LogEntry], seals: dict[str, ChainKeys]) -> Iterator[str]:
    loose = [row for row in rows if row.number is None]
    chained = [row for row in rows if row.number is not None]
    if loose and (not chained or loose[-1].id > chained[0].id):
        yield f"The entry with id {loose[-1].id} stands outside the chain."
        return
    if chained and (chained[0].what != BEGAN or chained[0].detail != _account(loose)):
        yield "The entries from before the chain are not those that its first entry speaks of."
    before, head = "", ""
    for expected, row in enumerate(chained, start=1):
        if row.number != expected:
            yield f"Entry {expected} is missing or out of its order (entry {row.number} stands there)."
            return  # what follows hangs on it
        if row.hash != _hash(row, before, head):
            yield f"Entry {expected} was changed ({_moment(row.at)})."
        elif row.key not in seals:
            yield f"Entry {expected} was sealed under another secret (ROOTNOTE_FORMER_SECRETS names those of before)."
        elif not hmac.compare_digest(row.seal or "", seals[row.key or ""].entry(row.hash or "")):
            yield f"Entry {expected} was not written by Rootnote: its seal is wrong."
        before = row.hash or ""
        sealed = seals.get(row.key or "")
        head = sealed.head(ChainEnd(expected, before)) if sealed else ""


def _head_faults(session: Session, rows: Sequence[LogEntry], seals: dict[str, ChainKeys]) -> Iterator[str]:
    head = session.get(LogHead, 1)
    last = max((row for row in rows if row.number is not None), key=lambda row: row.number or 0, default=None)
    if head is None:
        yield "The log's end is missing from the table log_head."
        return
    found = ChainEnd(0, "") if last is None else ChainEnd(last.number or 0, last.hash or "")
    if ChainEnd(head.number, head.hash) != found:
        yield f"The log ends at entry {found.number}, and was written to entry {head.number}."
        return
    if head.number == 0:
        served = session.scalar(select(ConsentText.hash).limit(1)) or session.scalar(select(Assignment.id).limit(1))
        if rows or head.seal or head.key or served:
            yield "There is no chain: the server was never started with it, or the log was emptied."
        return
    sealed = seals.get(head.key)
    if sealed is None or not hmac.compare_digest(head.seal, sealed.head(found)):
        yield "The log's end was not written by Rootnote: its seal is wrong."


def _noted_faults(rows: Sequence[LogEntry], noted: ChainEnd | None) -> Iterator[str]:
    if noted is not None and not any((row.number, row.hash) == (noted.number, noted.hash) for row in rows):
        yield f"Entry {noted.number} is not the one that was noted."
