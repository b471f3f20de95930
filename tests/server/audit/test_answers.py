"""Answers are sealed, and a witness outside the database records them: whoever owns only the database is found out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, make_url, select, text
from sqlalchemy.orm import Session

from server.app import create_app
from server.audit import hash_chain, resuming, study_control
from server.audit.seals import SealKeys
from server.audit.verification import Verification, verify
from server.audit.witness import Witness, name_database
from server.db import database
from server.db.models import Assignment, Response
from server.privacy import erasure
from server.settings import Settings
from tests.scale import count
from tests.server.audit.test_hash_chain import unlock
from tests.server.commands.test_server import quick
from tests.server.conftest import SECRET, Site

TAMPERINGS = count(64, 1000)


def engine_of(site: Site) -> Engine:
    engine = site.app.extensions["rootnote"].engine
    assert isinstance(engine, Engine)
    return engine


def witness_file(site: Site) -> Path:
    return site.study.folder / "witness.jsonl"


def checked(site: Site, session: Session | None = None) -> Verification:
    recorded = Witness(witness_file(site), name_database(make_url(site.database_url))).read([SealKeys(SECRET)])
    if session is not None:
        return verify(session, [SECRET], recorded=recorded)
    with database.snapshot(engine_of(site)) as session:
        return verify(session, [SECRET], recorded=recorded)


# ------------------------------------------------------------------ 1,000 random tamperings

Tampering = Callable[[Session, np.random.Generator], None]


def some(session: Session, rng: np.random.Generator, query: str) -> Any:
    rows = list(session.execute(text(query)))
    return rows[int(rng.integers(len(rows)))]


def edit_choice(session: Session, rng: np.random.Generator) -> None:
    row = some(session, rng, "SELECT id, choice FROM responses")
    other = {"A": "B", "B": "A"}[row.choice]
    session.execute(text("UPDATE responses SET choice = :c WHERE id = :id"), {"c": other, "id": row.id})


def edit_any_number(session: Session, rng: np.random.Generator) -> None:
    column = ("response_ms", "plays_x", "plays_a", "plays_b", "seconds_a")[int(rng.integers(5))]
    row = some(session, rng, "SELECT id FROM responses")
    new = {"more": int(rng.integers(1, 999)), "id": row.id}
    session.execute(text(f"UPDATE responses SET {column} = {column} + :more WHERE id = :id"), new)


def unseal_and_edit(session: Session, rng: np.random.Generator) -> None:
    """All seals removed, as if an earlier version had saved the answers."""
    edit_choice(session, rng)
    session.execute(text("UPDATE responses SET seal = NULL"))
    session.execute(text("UPDATE answers SET seal = NULL"))


def edit_question(session: Session, rng: np.random.Generator) -> None:
    row = some(session, rng, "SELECT id FROM answers")
    session.execute(text("UPDATE answers SET value = 'edited' WHERE id = :id"), {"id": row.id})


def swap_answers(session: Session, rng: np.random.Generator) -> None:
    """The answers of two listeners to the same trial change places, seals and all."""
    row = some(session, rng, "SELECT a.id AS a, b.id AS b, a.assignment_id AS x, b.assignment_id AS y FROM responses a"
               " JOIN responses b ON a.position = b.position AND a.assignment_id < b.assignment_id")  # fmt: skip
    for number, run, position in ((row.a, row.x, -1), (row.b, row.x, None), (row.a, row.y, None)):
        kept = "position" if position is None else str(position)
        new = {"id": number, "run": run}
        session.execute(text(f"UPDATE responses SET assignment_id = :run, position = {kept} WHERE id = :id"), new)
    same = "UPDATE responses SET position = (SELECT position FROM responses WHERE id = :b) WHERE id = :a"
    session.execute(text(same), {"a": row.a, "b": row.b})


def swap_lists(session: Session, rng: np.random.Generator) -> None:
    """Two listeners change their lists of trials: the same answers then mean something else."""
    session.execute(text("UPDATE assignments SET list_number = 1 - list_number"))


def delete_last(session: Session, rng: np.random.Generator) -> None:
    row = some(session, rng, "SELECT max(id) AS id FROM responses GROUP BY assignment_id")
    session.execute(text("DELETE FROM responses WHERE id = :id"), {"id": row.id})


def delete_run(session: Session, rng: np.random.Generator) -> None:
    """All that a listener answered, as if they had erased it, but without the log's entry."""
    row = some(session, rng, "SELECT id FROM assignments")
    for table in ("responses", "answers", "servings", "prescreen_items", "prescreen_results"):
        session.execute(text(f"DELETE FROM {table} WHERE assignment_id = :id"), {"id": row.id})
    if rng.integers(2):
        session.execute(text("UPDATE assignments SET erased_at = ended_at WHERE id = :id"), {"id": row.id})


def add_answer(session: Session, rng: np.random.Generator) -> None:
    """An answer copied to a further trial."""
    row = some(session, rng, "SELECT id FROM responses WHERE position = 3")
    columns = ", ".join(column.name for column in Response.__table__.columns if column.name not in ("id", "position"))
    session.execute(
        text(f"INSERT INTO responses (position, {columns}) SELECT 4, {columns} FROM responses WHERE id = :id"),
        {"id": row.id},
    )


def empty_log(session: Session, rng: np.random.Generator) -> None:
    """The log emptied with all data kept, the consent texts deleted, and the server started once."""
    session.execute(text("DELETE FROM log"))
    session.execute(text("DELETE FROM consent_texts"))
    session.execute(text("UPDATE log_head SET number = 0, hash = '', seal = '', key = ''"))
    session.expire_all()
    if rng.integers(4):
        later = session.execute(text("SELECT max(answered_at) FROM responses")).scalar_one()
        study_control.write_log(session, "ben", "signed in", hash_chain.datetime.fromisoformat(str(later))
                                .replace(tzinfo=hash_chain.UTC) + timedelta(days=int(rng.integers(1, 90))))  # fmt: skip


def rewind_log(session: Session, rng: np.random.Generator) -> None:
    """The log put back to an earlier end, with the head that was genuine then."""
    entries = list(session.execute(text("SELECT number, hash FROM log WHERE number IS NOT NULL ORDER BY number")))
    end = entries[int(rng.integers(len(entries) - 1))]
    session.execute(text("DELETE FROM log WHERE number > :n"), {"n": end.number})
    seal = SealKeys(SECRET).seal("head", f"{end.number}:{end.hash}")  # as a copy of the database would have it
    new = {"n": end.number, "h": end.hash, "s": seal}
    session.execute(text("UPDATE log_head SET number = :n, hash = :h, seal = :s"), new)


WAYS: tuple[Tampering, ...] = (
    edit_choice, edit_any_number, unseal_and_edit, edit_question, swap_answers, swap_lists, delete_last, delete_run,
    add_answer, empty_log, rewind_log,
)  # fmt: skip


@pytest.fixture
def answered(make_site: Callable[..., Site]) -> Site:
    site = make_site(listeners=2, trials=3)
    for _ in range(2):
        site.clock.advance(30)
        site.walker().take_part()
    with database.writing(engine_of(site)) as session, session.begin():
        study_control.write_log(session, "anna", "exported responses", site.clock.now)
    return site


@pytest.mark.slow
@pytest.mark.both_databases
def test_every_tampering_with_answers_or_log_is_found(answered: Site) -> None:
    whole = checked(answered)
    assert (whole.faults, whole.answers) == ((), 12)
    unlock(engine_of(answered))
    rng, missed = np.random.default_rng(4), []
    with database.writing(engine_of(answered)) as session:
        for number in range(TAMPERINGS):
            way = WAYS[number % len(WAYS)]
            way(session, rng)
            session.expire_all()
            if not checked(answered, session).faults:
                missed.append((number, way.__name__))
            session.rollback()
    assert missed == []
    assert checked(answered).faults == ()


def test_an_emptied_log_is_found_without_a_witness(answered: Site) -> None:
    """By the earliest trace of any kind."""
    unlock(engine_of(answered))
    with database.writing(engine_of(answered)) as session, session.begin():
        empty_log(session, np.random.default_rng(1))
        hash_chain.begin(session, answered.clock.now + timedelta(days=1))
    with database.snapshot(engine_of(answered)) as session:
        found = verify(session, [SECRET])
    assert "after the earliest trace of the study" in found.faults[0]
    assert any("no witness of this database" in note for note in found.notes)


# ------------------------------------------------------------------ erasure, retention, restoring


@pytest.mark.both_databases
def test_erasing_and_purging_keep_verifying(answered: Site) -> None:
    context = answered.app.extensions["rootnote"]
    with database.writing(engine_of(answered)) as session, session.begin():
        one = session.scalars(select(Assignment).order_by(Assignment.id)).first()
        assert one is not None
        erasure.erase(session, context.journal, one, answered.clock.now, erasure.LISTENER)
    found = checked(answered)
    assert (found.faults, found.answers) == ((), 6)


@contextmanager
def started(site: Site) -> Iterator[Site]:
    """The same study served by a server that starts now."""
    app = create_app(site.study, Settings(make_url(site.database_url), SECRET), clock=site.clock)
    yield Site(site.study, app, site.clock, site.database_url)
    app.extensions["rootnote"].engine.dispose()


@pytest.fixture
def environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", site.database_url)
    return site


def test_an_earlier_copy_is_found_unless_it_was_restored(
    environment: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, file = environment, Path(str(make_url(environment.database_url).database))
    listener = site.walker().begin().answer("A")
    assert quick("server", "backup", site.study.folder, "--to", tmp_path / "backups").exit_code == 0
    [copy] = (tmp_path / "backups").glob("*.sqlite3")
    listener.answer("B")
    assert quick("server", "export", site.study.folder, "--out", tmp_path / "export").exit_code == 0
    engine_of(site).dispose()
    put_back(copy, file)
    found = quick("server", "audit", "--verify", site.study.folder)
    assert found.exit_code == 1
    assert "an earlier copy of the database was put back" in found.output
    assert "1 answer is in the witness and not in the database" in found.output
    with started(site):  # a start explains nothing
        assert quick("server", "audit", "--verify", site.study.folder).exit_code == 1
    for name in ("", "-wal", "-shm"):
        file.with_name(f"{file.name}{name}").unlink(missing_ok=True)
    monkeypatch.delenv("ROOTNOTE_SECRET")
    refused = quick("server", "restore", copy, site.study.folder)
    assert "ROOTNOTE_SECRET is not set" in str(refused.exception)
    assert not file.exists()
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    assert quick("server", "restore", copy, site.study.folder).exit_code == 0
    found = quick("server", "audit", "--verify", site.study.folder)
    assert found.exit_code == 0, found.output
    assert f"restored the database ({copy.name})" in quick("server", "audit", site.study.folder).output
    # What comes after the restore is recorded again.
    with started(site) as again:
        listener.client = again.walker().client
        listener.reload().answer("B")
    assert quick("server", "audit", "--verify", site.study.folder).exit_code == 0
    put_back(copy, file)
    assert quick("server", "audit", "--verify", site.study.folder).exit_code == 1
    assert quick("server", "audit", "--restored", "the provider rewound it", site.study.folder).exit_code == 0
    assert quick("server", "audit", "--verify", site.study.folder).exit_code == 0
    assert "the provider rewound it" in quick("server", "audit", site.study.folder).output


def put_back(copy: Path, file: Path) -> None:
    for name in ("-wal", "-shm"):
        file.with_name(f"{file.name}{name}").unlink(missing_ok=True)
    shutil.copyfile(copy, file)


# ------------------------------------------------------------------ answers of an earlier version


def test_answers_of_an_earlier_version_are_sealed_at_the_first_start(environment: Site) -> None:
    site = environment
    site.walker().begin().answer("A")
    unlock(engine_of(site))
    with engine_of(site).begin() as connection:  # as version 0.2 left it
        connection.execute(text("UPDATE responses SET seal = NULL"))
        connection.execute(text("DELETE FROM log"))
        connection.execute(text("UPDATE log_head SET number = 0, hash = '', seal = '', key = ''"))
    witness_file(site).unlink()
    with database.writing(engine_of(site)) as session, session.begin(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hash_chain, "SEALED_FROM_START", "")
        patch.setattr(site.clock, "now", site.clock.now - timedelta(minutes=1))
        hash_chain.begin(session, site.clock.now)
    found = verify_by_command(site)
    assert found["faults"] == []
    assert any("not sealed yet" in note for note in found["notes"])
    with started(site):
        pass
    found = verify_by_command(site)
    assert found["faults"] == []
    assert any("(1 answer from before)" in note for note in found["notes"])
    with engine_of(site).begin() as connection:
        connection.execute(text("UPDATE responses SET choice = 'B', seal = NULL"))
    with started(site):  # sealing again would hide it
        pass
    with pytest.raises(AssertionError, match="it has no seal"):
        verify_by_command(site)


def verify_by_command(site: Site) -> dict[str, Any]:
    done = quick("server", "audit", "--verify", "--json", site.study.folder)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert isinstance(found, dict)
    return found


# ------------------------------------------------------------------ the witness itself


def test_the_witness_holds_no_answer_and_is_its_owners_only(answered: Site) -> None:
    lines = [json.loads(line) for line in witness_file(answered).read_text().splitlines()]
    assert {line["what"] for line in lines} == {"began", "log", "answer"}
    assert {key for line in lines for key in line} == {
        "database",
        "what",
        "at",
        "number",
        "hash",
        "run",
        "item",
        "seal",
    }
    assert witness_file(answered).stat().st_mode & 0o777 == 0o600


def test_a_forged_line_accuses_nobody_and_another_databases_line_is_skipped(answered: Site) -> None:
    file = witness_file(answered)
    genuine = json.loads(file.read_text().splitlines()[-1])
    other = {**genuine, "database": "0" * 16}
    forged = {**genuine, "number": 99}
    file.write_text(file.read_text() + f"{json.dumps(other)}\n{json.dumps(forged)}\nhalf a li")
    [fault] = checked(answered).faults
    assert "of the witness was not written by Rootnote" in fault


def test_answers_are_saved_when_the_witness_cannot_be_written(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    witness_file(site).unlink()
    witness_file(site).mkdir()
    listener = site.walker().begin().answer("A")
    assert listener.step == "trial"
    assert site.query("SELECT count(*) FROM responses") == [(1,)]
    assert "the witness cannot be written" in caplog.text


def test_a_rehearsal_has_no_witness(site: Site) -> None:
    settings = Settings(make_url(site.database_url), SECRET, rehearsal=True)
    assert settings.witness_of(site.study) is None
    assert resuming.RESTORED
