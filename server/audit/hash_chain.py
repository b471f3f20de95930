"""The hash chain of the audit log: every entry holds the previous entry's hash and is sealed with the server's secret.

An entry's hash is the SHA-256 of its number, time, author and texts, the previous hash, and the seal of the head to
which it was added. Its seal is an HMAC of the hash under a key derived from ROOTNOTE_SECRET, so write access to the
database alone is not enough to forge either. The head (one row) holds the last number and hash under a seal of its own
kind, so that a truncated log is detected, even after new entries have been added.

The first entry of the chain covers the entries from before the chain, by their number and hash. The owner of the
database can restore an earlier state as a whole: an old end with its head, or the time before the chain. Only an end
that was recorded elsewhere reveals that: `server audit` prints it, and every export contains it.
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

SERVER = "(server)"
BEGAN = "began the log"  # stored in every log: do not change


@dataclass(frozen=True)
class ChainEnd:
    """The end of the log: number and hash of its last entry; 0 and "" before the first."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


@dataclass(frozen=True)
class Verification:
    """The result of checking a log: number of entries, its end, and one sentence for every fault.

    `began`: when the chain began, None if it has not; `unsealed`: number of entries from before the chain.
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

    def seal_entry(self, digest: str) -> str:
        return self._seal(f"entry:{digest}")

    def seal_head(self, end: ChainEnd) -> str:
        return self._seal(f"head:{end}")

    def _seal(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256").hex()


def chain_keys(session: Session) -> ChainKeys:
    """The keys of a session whose engine was connected with the secret.

    Raises:
        RootnoteError: if it was connected without the secret.
    """
    secret = session.get_bind().get_execution_options().get(LOG_SECRET_OPTION)
    if not secret:
        raise RootnoteError(
            "the environment variable ROOTNOTE_SECRET is not set; this command writes to the audit log, which it seals."
        )
    return ChainKeys(str(secret))


def append(session: Session, who: str, what: str, at: datetime, detail: str, reason: str) -> LogEntry:
    """Add an entry at the end of the log; concurrent writers wait for each other."""
    keys, head = chain_keys(session), session.get_one(LogHead, 1, with_for_update=True)
    if head.number == 0:
        _add(session, keys, head, LogEntry(who=SERVER, what=BEGAN, at=at, detail=_unchained(session), reason=""))
    return _add(session, keys, head, LogEntry(who=who, what=what, at=at, detail=detail, reason=reason))


def begin(session: Session, at: datetime) -> None:
    """Begin the chain, unless it has begun."""
    keys, head = chain_keys(session), session.get_one(LogHead, 1, with_for_update=True)
    if head.number == 0:
        _add(session, keys, head, LogEntry(who=SERVER, what=BEGAN, at=at, detail=_unchained(session), reason=""))


def end(session: Session) -> ChainEnd:
    """The end of the log, according to its head."""
    head = session.get_one(LogHead, 1)
    return ChainEnd(head.number, head.hash)


def _add(session: Session, keys: ChainKeys, head: LogHead, entry: LogEntry) -> LogEntry:
    entry.number, entry.key = head.number + 1, keys.name
    entry.hash = _hash(entry, head.hash, head.seal)
    entry.seal = keys.seal_entry(entry.hash)
    session.add(entry)
    session.flush()
    head.number, head.hash, head.key = head.number + 1, entry.hash, keys.name
    head.seal = keys.seal_head(ChainEnd(head.number, head.hash))
    session.flush()
    return entry


def _hash(entry: LogEntry, previous: str, head_seal: str) -> str:
    values = [entry.number, _timestamp(entry.at), entry.who, entry.what, entry.detail, entry.reason]
    return hashlib.sha256(json.dumps([*values, previous, head_seal]).encode()).hexdigest()


def _timestamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _unchained(session: Session) -> str:
    """The detail of the first entry: the number and the hash of the entries before the chain."""
    rows = list(session.scalars(select(LogEntry).where(LogEntry.number.is_(None)).order_by(LogEntry.id)))
    return _summary(rows)


def _summary(rows: Sequence[LogEntry]) -> str:
    # Every chain's first entry contains this text, and `verify` compares it: do not change it.
    values = [[row.id, _timestamp(row.at), row.who, row.what, row.detail, row.reason] for row in rows]
    return f"{len(rows)} earlier entries, SHA-256 {hashlib.sha256(json.dumps(values).encode()).hexdigest()}"


# ------------------------------------------------------------------ checking


def verify(session: Session, secrets: Sequence[str], known_end: ChainEnd | None = None) -> Verification:
    """Read the whole log, in one snapshot, and find every change since it was written.

    Args:
        secrets: the current one first, then former ones.
        known_end: an end that was recorded elsewhere and must be in the log.
    """
    rows = list(session.scalars(select(LogEntry).order_by(LogEntry.id)))
    keys = {one.name: one for one in map(ChainKeys, secrets)}
    faults = [*_row_faults(rows, keys), *_head_faults(session, rows, keys), *_known_end_faults(rows, known_end)]
    first = next((row for row in rows if row.number == 1), None)
    served = session.scalar(select(func.min(ConsentText.since)))
    if first is not None and served is not None and served < first.at:
        faults.append(f"The log was restarted at {_timestamp(first.at)}, after the study had been served.")
    log_end = end(session) if session.get(LogHead, 1) else ChainEnd(0, "")
    unsealed = sum(row.number is None for row in rows)
    return Verification(len(rows), log_end, tuple(faults), first.at if first else None, unsealed)


def _row_faults(rows: Sequence[LogEntry], keys: dict[str, ChainKeys]) -> Iterator[str]:
    unchained = [row for row in rows if row.number is None]
    chained = [row for row in rows if row.number is not None]
    if unchained and (not chained or unchained[-1].id > chained[0].id):
        yield f"The entry with id {unchained[-1].id} is not part of the chain."
        return
    if chained and (chained[0].what != BEGAN or chained[0].detail != _summary(unchained)):
        yield "The entries from before the chain do not match its first entry."
    previous, head_seal = "", ""
    for expected, row in enumerate(chained, start=1):
        if row.number != expected:
            yield f"Entry {expected} is missing or out of order (entry {row.number} is in its place)."
            return  # all later entries depend on it
        if row.hash != _hash(row, previous, head_seal):
            yield f"Entry {expected} was changed ({_timestamp(row.at)})."
        elif row.key not in keys:
            yield f"Entry {expected} was sealed with another secret (list former ones in ROOTNOTE_FORMER_SECRETS)."
        elif not hmac.compare_digest(row.seal or "", keys[row.key or ""].seal_entry(row.hash or "")):
            yield f"Entry {expected} was not written by Rootnote: its seal is wrong."
        previous = row.hash or ""
        key = keys.get(row.key or "")
        head_seal = key.seal_head(ChainEnd(expected, previous)) if key else ""


def _head_faults(session: Session, rows: Sequence[LogEntry], keys: dict[str, ChainKeys]) -> Iterator[str]:
    head = session.get(LogHead, 1)
    last = max((row for row in rows if row.number is not None), key=lambda row: row.number or 0, default=None)
    if head is None:
        yield "The end of the log is missing from the table log_head."
        return
    last_end = ChainEnd(0, "") if last is None else ChainEnd(last.number or 0, last.hash or "")
    if ChainEnd(head.number, head.hash) != last_end:
        yield f"The log ends at entry {last_end.number}, but was written up to entry {head.number}."
        return
    if head.number == 0:
        served = session.scalar(select(ConsentText.hash).limit(1)) or session.scalar(select(Assignment.id).limit(1))
        if rows or head.seal or head.key or served:
            yield "There is no chain: the log was emptied, or the server has never started with this version."
        return
    key = keys.get(head.key)
    if key is None or not hmac.compare_digest(head.seal, key.seal_head(last_end)):
        yield "The end of the log was not written by Rootnote: its seal is wrong."


def _known_end_faults(rows: Sequence[LogEntry], end: ChainEnd | None) -> Iterator[str]:
    if end is not None and not any((row.number, row.hash) == (end.number, end.hash) for row in rows):
        yield f"Entry {end.number} is not the one recorded elsewhere (--noted, or in export.json)."
