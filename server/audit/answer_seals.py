"""Seals of listeners' answers: an answer that was edited, moved or added in the database is detected.

Every row of `responses` and `answers` carries an HMAC of all its values, its run's pseudonym and its list, under a key
derived from ROOTNOTE_SECRET. Empty values are left out, so that a nullable column that is added later changes no seal:
a new column of these tables must be nullable. Deleted answers are found by the witness (server.audit.witness), and by
gaps in the numbers of a run's trials.

A database of an earlier version holds answers without a seal. The first start of the server seals them all and logs
how many there were; from then on, an answer without a seal is a fault.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Float, Integer, Row, Select, Table, bindparam, select, update
from sqlalchemy.orm import Session

from embeddings.wording import counted
from server.audit import hash_chain, witness
from server.audit.seals import SealKeys, require_keys
from server.db.base import UtcDateTime
from server.db.models import Answer, Assignment, LogEntry, Response

SEALED = "sealed earlier answers"  # an entry of the log: do not change
ERASED = "erased a listener's answers"
NOT_COVERED = ("id", "assignment_id", "seal")
TABLES: dict[type[Response] | type[Answer], str] = {Response: "position", Answer: "question"}  # what numbers an answer


def add_seal(session: Session, table: type[Response] | type[Answer], run: Assignment, values: dict[str, Any]) -> None:
    """Set the seal of an answer that is about to be saved, and note it for the witness."""
    keys = require_keys(session)
    values["seal"] = _seal(keys, _content(table, run.pseudonym, run.list_number, values))
    witness.note_answer(session, run.pseudonym, item_of(table, values[TABLES[table]]))


def item_of(table: type[Response] | type[Answer], number: object) -> str:
    """How the witness names an answer within its run."""
    return str(number) if table is Response else f"question {number}"


def _seal(keys: SealKeys, content: str) -> str:
    return f"{keys.name}:{keys.seal('answer', content)}"


def _content(table: type[Response] | type[Answer], pseudonym: str, list_number: int, values: Mapping[str, Any]) -> str:
    covered = {name: convert(values[name]) for name, convert in _columns(table) if values.get(name) is not None}
    return json.dumps([table.__tablename__, pseudonym, list_number, covered], sort_keys=True)


@functools.cache
def _columns(table: type[Response] | type[Answer]) -> list[tuple[str, Callable[[Any], Any]]]:
    columns = [column for column in table.__table__.columns if column.name not in NOT_COVERED]
    return [(column.name, _converter(column.type)) for column in columns]


def _converter(kind: Any) -> Callable[[Any], Any]:
    """How a value is written, the same before it is stored and after it is read."""
    if isinstance(kind, UtcDateTime):
        return _timestamp
    for types, convert in ((Boolean, bool), (Integer, int), (Float, float)):
        if isinstance(kind, types):
            return convert
    return lambda value: value


def _timestamp(value: datetime) -> str:
    return hash_chain.timestamp(value)


# ------------------------------------------------------------------ answers of an earlier version


def seal_earlier(session: Session, now: datetime) -> None:
    """Seal the answers that an earlier version saved, once."""
    keys = require_keys(session)
    hash_chain.lock_head(session)  # of several servers that start, one does it
    first = select(LogEntry.reason).where(LogEntry.number == 1)
    done = select(LogEntry.id).where(LogEntry.what == SEALED).limit(1)
    if session.scalar(first) == hash_chain.SEALED_FROM_START or session.scalar(done) is not None:
        return
    number = sum(_seal_rows(session, keys, table) for table in TABLES)
    hash_chain.append(session, hash_chain.SERVER, SEALED, now, counted(number, "answer"), "")


def _seal_rows(session: Session, keys: SealKeys, model: type[Response] | type[Answer]) -> int:
    table: Table = model.__table__  # type: ignore[assignment]
    rows = session.execute(_query(model).where(table.c.seal.is_(None))).all()
    seals = [{"row": row.id, "made": _seal(keys, _content_of(model, row))} for row in rows]
    if seals:
        statement = update(table).where(table.c.id == bindparam("row")).values(seal=bindparam("made"))
        session.connection().execute(statement, seals)
    return len(seals)


def _query(model: type[Response] | type[Answer]) -> Select[Any]:
    """Every row, with its run's pseudonym and list."""
    table: Table = model.__table__  # type: ignore[assignment]
    run = select(*table.c, Assignment.pseudonym.label("run"), Assignment.list_number.label("run_list"))
    return run.select_from(table.join(Assignment.__table__, Assignment.id == table.c.assignment_id)).order_by(
        table.c.id
    )


def _content_of(model: type[Response] | type[Answer], row: Row[Any]) -> str:
    return _content(model, row.run, row.run_list, row._asdict())


def saved(session: Session) -> Iterator[tuple[str, str]]:
    """Every saved answer, as the witness records it: (pseudonym, item)."""
    for model, number in TABLES.items():
        table: Table = model.__table__  # type: ignore[assignment]
        join = table.join(Assignment.__table__, Assignment.id == table.c.assignment_id)
        for run, item in session.execute(select(Assignment.pseudonym, table.c[number]).select_from(join)):
            yield run, item_of(model, item)


# ------------------------------------------------------------------ checking


def faults(session: Session, keys: Mapping[str, SealKeys], *, sealed: bool) -> Iterator[str]:
    """Every answer whose seal is wrong or missing, and every gap in a run's trials.

    Args:
        keys: the known ones, by name.
        sealed: whether every answer must have a seal.
    """
    positions: dict[str, list[int]] = defaultdict(list)
    for model, number in TABLES.items():
        for row in session.execute(_query(model)):
            item = row._mapping[number]
            what = f"The answer to {f'trial {item}' if model is Response else f'question {item!r}'} of {row.run}"
            if model is Response:
                positions[row.run].append(item)
            name, _, seal = (row.seal or "").partition(":")
            if not row.seal:
                if sealed:
                    yield f"{what} was not saved by Rootnote: it has no seal."
            elif name not in keys:
                yield f"{what} was sealed with another secret (list former ones in ROOTNOTE_FORMER_SECRETS)."
            elif not keys[name].is_seal("answer", _content_of(model, row), seal):
                yield f"{what} was changed: its seal is wrong."
    for run, found in positions.items():
        if len(found) < max(found):
            yield f"{counted(max(found) - len(found), 'answer is', 'answers are')} missing in the run {run}."


def erased_runs(session: Session) -> set[str]:
    """The pseudonyms of the runs whose answers were erased, according to the log."""
    return set(session.scalars(select(LogEntry.detail).where(LogEntry.what == ERASED)))
