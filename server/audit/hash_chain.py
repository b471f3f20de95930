"""The hash chain of the audit log: every entry holds the previous entry's hash and is sealed with the server's secret.

An entry's hash is the SHA-256 of its number, time, author and texts, the previous hash, and the seal of the head to
which it was added. Its seal is an HMAC of the hash under a key derived from ROOTNOTE_SECRET, so write access to the
database alone is not enough to forge either. The head (one row) holds the last number and hash under a seal of its own
kind, so that a truncated log is detected, even after new entries have been added. The first entry of the chain covers
the entries from before the chain, by their number and hash.

The owner of the database can restore an earlier state as a whole. The witness (server.audit.witness), a file outside
the database, reveals that; server.audit.verification compares everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.audit import witness
from server.audit.seals import SealKeys, require_keys
from server.db.models import LogEntry, LogHead

SERVER = "(server)"
BEGAN = "began the log"  # stored in every log: do not change
SEALED_FROM_START = "answers are sealed"  # the reason of the first entry, if no answer was saved without a seal


@dataclass(frozen=True)
class ChainEnd:
    """The end of the log: number and hash of its last entry; 0 and "" before the first."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


def append(session: Session, who: str, what: str, at: datetime, detail: str, reason: str) -> LogEntry:
    """Add an entry at the end of the log; concurrent writers wait for each other."""
    keys, head = require_keys(session), lock_head(session)
    if head.number == 0:
        _add(session, keys, head, _first_entry(session, at))
    return _add(session, keys, head, LogEntry(who=who, what=what, at=at, detail=detail, reason=reason))


def begin(session: Session, at: datetime) -> None:
    """Begin the chain, unless it has begun."""
    keys, head = require_keys(session), lock_head(session)
    if head.number == 0:
        _add(session, keys, head, _first_entry(session, at))


def lock_head(session: Session) -> LogHead:
    """The head of the log; other writers wait until this transaction ends."""
    return session.get_one(LogHead, 1, with_for_update=True)


def end(session: Session) -> ChainEnd:
    """The end of the log, according to its head."""
    head = session.get_one(LogHead, 1)
    return ChainEnd(head.number, head.hash)


def _first_entry(session: Session, at: datetime) -> LogEntry:
    earlier = list(session.scalars(select(LogEntry).where(LogEntry.number.is_(None)).order_by(LogEntry.id)))
    return LogEntry(who=SERVER, what=BEGAN, at=at, detail=summary(earlier), reason=SEALED_FROM_START)


def _add(session: Session, keys: SealKeys, head: LogHead, entry: LogEntry) -> LogEntry:
    entry.number, entry.key = head.number + 1, keys.name
    entry.hash = entry_hash(entry, head.hash, head.seal)
    entry.seal = keys.seal("entry", entry.hash)
    session.add(entry)
    session.flush()
    head.number, head.hash, head.key = head.number + 1, entry.hash, keys.name
    head.seal = keys.seal("head", str(ChainEnd(head.number, head.hash)))
    session.flush()
    witness.note_entry(session, head.number, head.hash)
    return entry


def entry_hash(entry: LogEntry, previous: str, head_seal: str) -> str:
    """The hash of an entry, given the previous one's hash and the seal of the head to which it is added."""
    values = [entry.number, timestamp(entry.at), entry.who, entry.what, entry.detail, entry.reason]
    return hashlib.sha256(json.dumps([*values, previous, head_seal]).encode()).hexdigest()


def timestamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def summary(rows: Sequence[LogEntry]) -> str:
    """The detail of the first entry: the number and the hash of the entries before the chain."""
    # Every chain's first entry contains this text, and verification compares it: do not change it.
    values = [[row.id, timestamp(row.at), row.who, row.what, row.detail, row.reason] for row in rows]
    return f"{len(rows)} earlier entries, SHA-256 {hashlib.sha256(json.dumps(values).encode()).hexdigest()}"
