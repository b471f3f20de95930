"""The log's hash chain: every edit, deletion and reordering is found; only the secret allows writing."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, Row, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from embeddings.errors import RootnoteError
from server.audit import hash_chain, study_control
from server.audit.hash_chain import ChainEnd
from server.audit.seals import SealKeys
from server.audit.verification import verify
from server.db import database
from server.db.models import ConsentText
from study.config import Study
from tests.scale import count
from tests.server.commands.test_server import quick
from tests.server.conftest import SECRET
from tests.server.small_study import make_study

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
OTHER = "another secret, of the right length too"
ENTRIES = 24
TAMPERINGS = count(100, 500)  # on each of the two databases


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    found = database.connect(make_url(database_url), SECRET)
    database.migrate(found)
    yield found
    found.dispose()


def write(engine: Engine, number: int = ENTRIES) -> ChainEnd:
    with database.writing(engine) as session, session.begin():
        for step in range(number):
            who, what = ("anna", "ben")[step % 2], ("signed in", "exported responses")[step % 3 == 0]
            reason = f"reason {step}"
            study_control.write_log(
                session, who, what, NOW + timedelta(minutes=step), detail=f"detail {step}", reason=reason
            )
        return hash_chain.end(session)


def faults(engine: Engine, *secrets: str, known_end: ChainEnd | None = None) -> tuple[str, ...]:
    with database.reading(engine) as session:
        return verify(session, secrets or (SECRET,), known_end).faults


def unlock(engine: Engine) -> None:
    """Remove the triggers, as the owner of the tables can."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for name in ("log_no_update", "log_no_delete"):
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("DROP TRIGGER log_no_change ON log"))


def test_an_unchanged_log_is_valid(engine: Engine) -> None:
    end = write(engine)
    with database.reading(engine) as session:
        result = verify(session, [SECRET], end)
    assert (result.faults, result.entries, result.end) == ((), ENTRIES + 1, end)  # the first tells that it began
    assert end.number == ENTRIES + 1


@pytest.mark.both_databases
def test_concurrent_writers_wait_for_each_other(engine: Engine) -> None:
    threads = [threading.Thread(target=write, args=(engine, 5)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults(engine) == ()
    with database.reading(engine) as session:
        assert hash_chain.end(session).number == 31


@pytest.mark.both_databases
def test_nobody_changes_a_row_by_accident(engine: Engine) -> None:
    write(engine, 2)
    for statement in ("UPDATE log SET who = 'eve'", "DELETE FROM log"):
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text(statement))


# ------------------------------------------------------------------ 1,000 random tamperings

COLUMNS = ("at", "who", "what", "detail", "reason", "number", "hash", "seal", "key")
Tampering = Callable[[Session, np.random.Generator, list[Row[Any]]], None]


def _some(rng: np.random.Generator, rows: list[Row[Any]]) -> Row[Any]:
    return rows[int(rng.integers(len(rows)))]


def edit(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """Another value in one field."""
    row, column = _some(rng, rows), COLUMNS[int(rng.integers(5))]
    value: Any = f"edited {rng.integers(10**9)}"
    if column == "at":
        value = NOW + timedelta(days=400, seconds=int(rng.integers(10**6)))
        value = value.strftime("%Y-%m-%d %H:%M:%S.%f") if session.get_bind().dialect.name == "sqlite" else value
    session.execute(text(f"UPDATE log SET {column} = :v WHERE id = :id"), {"v": value, "id": row.id})


def edit_and_hash(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """Another value, with every later hash recomputed: all that needs no secret."""
    place = int(rng.integers(len(rows)))
    before, head = rows[place - 1].hash if place else "", ""
    for row in rows[place:]:
        who = "eve" if row is rows[place] else row.who
        at = row.at if isinstance(row.at, datetime) else datetime.fromisoformat(row.at).replace(tzinfo=UTC)
        changed = hash_chain.LogEntry(
            number=row.number, at=at, who=who, what=row.what, detail=row.detail, reason=row.reason
        )
        before, head = hash_chain.entry_hash(changed, before, head), ""  # the seal of the head needs the secret
        new = {"who": who, "hash": before, "id": row.id}
        session.execute(text("UPDATE log SET who = :who, hash = :hash WHERE id = :id"), new)
    session.execute(text("UPDATE log_head SET hash = :hash"), {"hash": before})


def delete(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """One row less, or several running."""
    first = int(rng.integers(len(rows)))
    last = min(first + int(rng.integers(3)), len(rows) - 1)
    session.execute(text("DELETE FROM log WHERE id BETWEEN :a AND :b"), {"a": rows[first].id, "b": rows[last].id})


def cut_off(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """The end removed, and the head set to the last remaining entry, with that entry's seal."""
    keep = int(rng.integers(1, len(rows)))
    last = rows[keep - 1]
    session.execute(text("DELETE FROM log WHERE id > :id"), {"id": last.id})
    head = {"n": last.number, "h": last.hash, "s": last.seal}
    session.execute(text("UPDATE log_head SET number = :n, hash = :h, seal = :s"), head)


def renumber(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """One row removed, and the later ones renumbered."""
    place = int(rng.integers(len(rows) - 1))
    session.execute(text("DELETE FROM log WHERE id = :id"), {"id": rows[place].id})
    for row in rows[place + 1 :]:
        session.execute(text("UPDATE log SET number = number - 1 WHERE id = :id"), {"id": row.id})
    session.execute(text("UPDATE log_head SET number = number - 1"))


def swap(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """Two rows change places, hashes and all."""
    a, b = (rows[int(i)] for i in rng.choice(len(rows), 2, replace=False))
    for row, new in ((a, -1), (b, a.id), (a, b.id)):
        old = -1 if (row is a and new == b.id) else row.id
        session.execute(text("UPDATE log SET id = :new WHERE id = :old"), {"new": new, "old": old})


def swap_words(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """Two rows change what they say, and keep their numbers and hashes."""
    a, b = (rows[int(i)] for i in rng.choice(len(rows), 2, replace=False))
    for row, other in ((a, b), (b, a)):
        new = {"who": other.who, "what": other.what, "detail": other.detail, "reason": other.reason, "id": row.id}
        words = "who = :who, what = :what, detail = :detail, reason = :reason"
        session.execute(text(f"UPDATE log SET {words} WHERE id = :id"), new)


def insert(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """A forged row at the end, with a correct hash and a seal made with another secret."""
    last, seals = rows[-1], SealKeys(OTHER)
    entry = hash_chain.LogEntry(at=NOW, who="anna", what="signed in", detail="", reason="", number=last.number + 1)
    entry.hash = hash_chain.entry_hash(entry, last.hash, "")
    entry.seal, entry.key = seals.seal("entry", entry.hash), str(rng.choice([seals.name, last.key]))
    session.add(entry)
    session.flush()
    end = ChainEnd(last.number + 1, entry.hash)
    new = {"n": end.number, "h": end.hash, "s": seals.seal("head", str(end)), "k": entry.key}
    session.execute(text("UPDATE log_head SET number = :n, hash = :h, seal = :s, key = :k"), new)


def empty(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """The log emptied, as if it had never begun, although the study has been served."""
    session.execute(text("DELETE FROM log"))
    session.execute(text("UPDATE log_head SET number = 0, hash = '', seal = '', key = ''"))


def unchain(session: Session, rng: np.random.Generator, rows: list[Row[Any]]) -> None:
    """A row edited, and the log set back to the time before the chain."""
    session.execute(text("DELETE FROM log WHERE number = 1"))
    session.execute(text("UPDATE log SET who = 'eve' WHERE id = :id"), {"id": _some(rng, rows[1:]).id})
    session.execute(text("UPDATE log SET number = NULL, hash = NULL, seal = NULL, key = NULL"))
    session.execute(text("UPDATE log_head SET number = 0, hash = '', seal = '', key = ''"))


WAYS: tuple[Tampering, ...] = (
    edit, edit_and_hash, delete, cut_off, renumber, swap, swap_words, insert, empty, unchain,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.both_databases
def test_every_random_tampering_is_found(engine: Engine) -> None:
    """Of ten kinds, each also with an entry written after it."""
    write(engine)
    with database.writing(engine) as session, session.begin():  # the study is served
        session.add(ConsentText(hash="0" * 64, language="en", number=1, text="", since=NOW + timedelta(days=1)))
    unlock(engine)
    rng, missed = np.random.default_rng(8), []
    with database.writing(engine) as session:
        rows = list(session.execute(text("SELECT * FROM log ORDER BY id")))
        session.rollback()
        for number in range(TAMPERINGS):
            way = WAYS[number % len(WAYS)]
            way(session, rng, rows)
            session.expire_all()
            if number // len(WAYS) % 2:  # then a genuine entry follows
                with contextlib.suppress(IntegrityError):  # the number is taken: nothing can be added
                    study_control.write_log(session, "ben", "signed in", NOW + timedelta(days=500))
                    session.expire_all()
            if not verify(session, [SECRET]).faults:
                missed.append((number, way.__name__))
            session.rollback()
    assert missed == []
    assert faults(engine) == ()  # all was rolled back


def test_a_restored_old_end_is_found_by_a_recorded_one(engine: Engine) -> None:
    write(engine, 3)
    with engine.connect() as connection:
        head = connection.execute(text("SELECT * FROM log_head")).one()
    recorded = write(engine, 2)
    unlock(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM log WHERE number > :n"), {"n": head.number})
        new = {"n": head.number, "h": head.hash, "s": head.seal}
        connection.execute(text("UPDATE log_head SET number = :n, hash = :h, seal = :s"), new)
    assert faults(engine) == ()  # the database alone cannot know
    assert len(faults(engine, known_end=recorded)) == 1
    assert "Entry 6" in faults(engine, known_end=recorded)[0]


def test_another_secret(engine: Engine) -> None:
    write(engine, 2)
    other = database.connect(engine.url, OTHER)
    write(other, 2)
    other.dispose()
    assert faults(engine, OTHER, SECRET) == ()
    assert any("another secret" in fault for fault in faults(engine, OTHER))
    assert len(faults(engine, SECRET)) == 3  # two entries and the end


def test_without_the_secret_nothing_is_written(engine: Engine) -> None:
    without = database.connect(engine.url)
    with pytest.raises(RootnoteError, match="ROOTNOTE_SECRET"):
        write(without, 1)
    without.dispose()


# ------------------------------------------------------------------ the command


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    study = make_study(tmp_path / "study")
    assert quick("server", "migrate", study.folder).exit_code == 0
    return study


def test_audit(study: Study) -> None:
    assert quick("server", "export", study.folder).exit_code == 0
    shown = quick("server", "audit", study.folder).output
    assert "exported responses" in shown
    recorded = shown.split("The log ends at ")[1].split(".")[0]
    verified = quick("server", "audit", "--verify", "--noted", recorded, study.folder).output
    assert "2 entries" in verified
    assert recorded in verified
    assert "unsealed" not in verified
    manifest = json.loads((study.folder / "export.json").read_text())
    assert recorded in json.dumps(manifest)  # an export records the end
    assert json.loads(quick("server", "audit", "--json", study.folder).output)["end"] == recorded
    refused = quick("server", "audit", "--noted", "7", study.folder)
    assert "must be NUMBER:HASH" in str(refused.exception)


def test_audit_of_a_log_that_was_changed(study: Study) -> None:
    assert quick("server", "export", study.folder).exit_code == 0
    engine = database.connect(make_url(f"sqlite:///{study.folder / 'rootnote.sqlite3'}"))
    unlock(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE log SET who = 'nobody' WHERE number = 2"))
    engine.dispose()
    found = quick("server", "audit", "--verify", study.folder)
    assert "Entry 2 was changed (2" in found.output
    assert (found.exit_code, "1 fault" in str(found.exception)) == (1, True)
    again = quick("server", "audit", "--verify", "--json", study.folder)
    assert len(json.loads(again.output)["faults"]) == 1
    assert again.exit_code == 1


def test_verify_looks_for_the_end_in_the_export(study: Study) -> None:
    assert quick("server", "export", study.folder).exit_code == 0
    (study.folder / "rootnote.sqlite3").unlink()
    assert quick("server", "migrate", study.folder).exit_code == 0
    found = quick("server", "audit", "--verify", study.folder)  # an intact log, but not that of the export
    assert found.output.startswith("Entry 2 is not the one")
    assert found.exit_code == 1
