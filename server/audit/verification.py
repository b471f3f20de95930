"""Checking the log, the answers' seals and the witness against each other: every change since they were written.

The attacker who is considered owns the database and lacks ROOTNOTE_SECRET.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Date, func, select
from sqlalchemy.orm import Session

from embeddings.wording import counted
from server.audit import answer_seals
from server.audit.hash_chain import BEGAN, SEALED_FROM_START, ChainEnd, end, entry_hash, summary, timestamp
from server.audit.seals import SealKeys
from server.audit.witness import WitnessRecord
from server.db.base import UtcDateTime
from server.db.models import Base, LogEntry, LogHead

CLOCK_DIFFERENCE = timedelta(minutes=1)  # between servers, and between a row and the entry that follows it
NO_TRACE = ("log",)


@dataclass(frozen=True)
class Verification:
    """The result of a check: number of log entries and the log's end, one sentence for every fault.

    `began`: when the chain began, None if it has not; `unsealed`: number of entries from before the chain; `answers`:
    number of answers; `notes`: one sentence for everything that could not be checked.
    """

    entries: int
    end: ChainEnd
    faults: tuple[str, ...]
    began: datetime | None = None
    unsealed: int = 0
    answers: int = 0
    notes: tuple[str, ...] = ()


def verify(
    session: Session,
    secrets: Sequence[str],
    known_end: ChainEnd | None = None,
    recorded: WitnessRecord | None = None,
) -> Verification:
    """Read the whole log and all answers, in one snapshot, and find every change since they were written.

    Args:
        session: in a snapshot of the database that is newer than `recorded`.
        secrets: the current one first, then former ones.
        known_end: an end that was recorded elsewhere and must be in the log.
        recorded: what the witness has recorded; None if there is none here.
    """
    rows = list(session.scalars(select(LogEntry).order_by(LogEntry.id)))
    keys = {one.name: one for one in map(SealKeys, secrets)}
    first = next((row for row in rows if row.number == 1), None)
    sealed_at = _sealed_at(rows)
    faults = [*_row_faults(rows, keys), *_head_faults(session, rows, keys), *_known_end_faults(rows, known_end)]
    faults += [*_start_faults(session, first), *answer_seals.faults(session, keys, sealed=sealed_at is not None)]
    saved = set(answer_seals.saved(session))
    if recorded is not None:
        faults += _witness_faults(session, rows, saved, recorded)
    log_end = end(session) if session.get(LogHead, 1) else ChainEnd(0, "")
    unsealed = sum(row.number is None for row in rows)
    notes = (*_seal_notes(rows, sealed_at, bool(saved)), *_witness_notes(recorded))
    began = first.at if first else None
    return Verification(len(rows), log_end, tuple(faults), began, unsealed, len(saved), notes)


# ------------------------------------------------------------------ the log


def _row_faults(rows: Sequence[LogEntry], keys: dict[str, SealKeys]) -> Iterator[str]:
    unchained = [row for row in rows if row.number is None]
    chained = [row for row in rows if row.number is not None]
    if unchained and (not chained or unchained[-1].id > chained[0].id):
        yield f"The entry with id {unchained[-1].id} is not part of the chain."
        return
    if chained and (chained[0].what != BEGAN or chained[0].detail != summary(unchained)):
        yield "The entries from before the chain do not match its first entry."
    previous, head_seal = "", ""
    for expected, row in enumerate(chained, start=1):
        if row.number != expected:
            yield f"Entry {expected} is missing or out of order (entry {row.number} is in its place)."
            return  # all later entries depend on it
        key = keys.get(row.key or "")
        if row.hash != entry_hash(row, previous, head_seal):
            yield f"Entry {expected} was changed ({timestamp(row.at)})."
        elif key is None:
            yield f"Entry {expected} was sealed with another secret (list former ones in ROOTNOTE_FORMER_SECRETS)."
        elif not key.is_seal("entry", row.hash, row.seal):
            yield f"Entry {expected} was not written by Rootnote: its seal is wrong."
        previous = row.hash or ""
        head_seal = key.seal("head", str(ChainEnd(expected, previous))) if key else ""


def _head_faults(session: Session, rows: Sequence[LogEntry], keys: dict[str, SealKeys]) -> Iterator[str]:
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
        if rows or head.seal or head.key or earliest_trace(session) is not None:
            yield "There is no chain: the log was emptied, or the server has never started with this version."
        return
    key = keys.get(head.key)
    if key is None or not key.is_seal("head", str(last_end), head.seal):
        yield "The end of the log was not written by Rootnote: its seal is wrong."


def _known_end_faults(rows: Sequence[LogEntry], known: ChainEnd | None) -> Iterator[str]:
    if known is not None and not any((row.number, row.hash) == (known.number, known.hash) for row in rows):
        yield f"Entry {known.number} is not the one recorded elsewhere (--noted, or in export.json)."


def _start_faults(session: Session, first: LogEntry | None) -> Iterator[str]:
    trace = earliest_trace(session)
    if first is not None and trace is not None and trace[0] < first.at - CLOCK_DIFFERENCE:
        moment, where = trace
        yield (
            f"The log began at {timestamp(first.at)}, after the earliest trace of the study ({where}, "
            f"{timestamp(moment)}): it was emptied and begun again."
        )


def earliest_trace(session: Session) -> tuple[datetime, str] | None:
    """The earliest time that any table holds, and the name of its column; None if there is none."""
    found: list[tuple[datetime, str]] = []
    for table in Base.metadata.tables.values():
        for column in table.columns if table.name not in NO_TRACE else ():
            if not isinstance(column.type, UtcDateTime | Date):
                continue
            moment = session.scalar(select(func.min(column)))
            if moment is not None:
                # A day without a time counts from its end.
                day = not isinstance(moment, datetime)
                at = datetime(moment.year, moment.month, moment.day, 23, 59, 59, tzinfo=UTC) if day else moment
                found.append((at, f"{table.name}.{column.name}"))
    return min(found, default=None)


# ------------------------------------------------------------------ answers and witness


def _sealed_at(rows: Sequence[LogEntry]) -> datetime | None:
    """Since when every answer is sealed, according to the log; None if they are not."""
    for row in rows:
        if row.number is not None and (
            (row.number == 1 and row.reason == SEALED_FROM_START) or row.what == answer_seals.SEALED
        ):
            return row.at
    return None


def _seal_notes(rows: Sequence[LogEntry], sealed_at: datetime | None, saved: bool) -> Iterator[str]:
    if sealed_at is None:
        if saved:
            yield "Answers are not sealed yet: start the server once with this version."
        return
    entry = next((row for row in rows if row.what == answer_seals.SEALED), None)
    if entry is not None:
        yield f"Answers are sealed since {sealed_at:%Y-%m-%d %H:%M} UTC ({entry.detail} from before)."


def _witness_faults(
    session: Session, rows: Sequence[LogEntry], saved: set[tuple[str, str]], recorded: WitnessRecord
) -> list[str]:
    faults = [
        f"Line {number} of the witness was not written by Rootnote: its seal is wrong." for number in recorded.forged
    ]
    ends, answers = recorded.ends, recorded.answers
    if recorded.restored is not None:  # the server has not started since
        ends, answers = {one for one in ends if one[0] <= recorded.restored["number"]}, set()
    missing = ends - {(row.number, row.hash) for row in rows}
    if missing:
        first = min(missing)[0]
        faults.append(
            f"{counted(len(missing), 'entry of the log is', 'entries of the log are')} in the witness and not in the "
            f"database (from entry {first} on): the log was replaced, or an earlier copy of the database was put back."
        )
    erased = answer_seals.erased_runs(session)
    gone = {one for one in answers - saved if one[0] not in erased}
    for run in sorted({run for run, _ in gone}):
        items = sorted((item for other, item in gone if other == run), key=lambda item: (len(item), item))
        named = ", ".join(items[:5]) + (", …" if len(items) > 5 else "")
        number = counted(len(items), "answer is", "answers are")
        faults.append(f"{number} in the witness and not in the database (run {run}, {named}).")
    return faults


def _witness_notes(recorded: WitnessRecord | None) -> Iterator[str]:
    if recorded is None or not (recorded.began or recorded.ends):
        yield (
            "There is no witness of this database here: deleted answers and an earlier copy of the database are not "
            "detected."
        )
    elif recorded.restored is not None:
        yield f"The database was restored ({recorded.restored['file']}), and the server has not started since."
    elif recorded.began:
        yield f"The witness began at {recorded.began[:16].replace('T', ' ')} UTC."
