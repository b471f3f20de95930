"""The migrations lead to the models, on both databases, and twice."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import Engine, make_url, text

from server.db import database


@pytest.mark.both_databases
def test_migrated_tables_are_the_models(database_url: str) -> None:
    engine = database.connect(make_url(database_url))
    revision = database.migrate(engine)
    with engine.connect() as connection:
        command.check(database._alembic(connection))
    database.recreate(engine)  # a rehearsal empties its database, triggers and all
    assert database.migrate(engine) == revision
    engine.dispose()


@pytest.mark.both_databases
def test_whoever_was_there_before_roles_is_an_owner_and_stays_signed_in(database_url: str) -> None:
    engine = database.connect(make_url(database_url))
    _move(engine, "0006")
    now = "'2026-03-01 12:00:00'"
    _run(
        engine,
        "INSERT INTO researchers (id, name, password_hash, created_at) VALUES "
        f"(1, 'anna', 'x', {now}), (2, 'b', 'x', {now})",
        "INSERT INTO sign_ins (researcher_id, token_hash, created_at, seen_at) VALUES "
        f"(1, 'one', {now}, {now}), (2, 'two', {now}, {now})",
    )
    _move(engine, "0007")
    people = "SELECT name, role, factor, factor_step, recovery FROM researchers ORDER BY id"
    assert _rows(engine, people) == [("anna", "owner", None, None, None), ("b", "owner", None, None, None)]
    assert _rows(engine, "SELECT count(*) FROM sign_ins") == [(2,)]
    # Back, a monitor would see everything: they cannot sign in any more.
    _run(engine, "UPDATE researchers SET role = 'monitor' WHERE id = 2")
    _move(engine, "0006", back=True)
    assert _rows(engine, "SELECT name FROM researchers") == [("anna",)]
    assert _rows(engine, "SELECT researcher_id FROM sign_ins") == [(1,)]
    database.migrate(engine)
    with engine.connect() as connection:
        command.check(database._alembic(connection))
    engine.dispose()


@pytest.mark.both_databases
def test_runs_of_earlier_versions_are_confirmed_where_the_marketplace_reported_them(database_url: str) -> None:
    engine = database.connect(make_url(database_url))
    _move(engine, "0008")
    states = ("submitted", "approved", "rejected", "screened_out", "held", "returned", "timed_out", "")
    for number, state in enumerate(states, start=1):
        _run(
            engine,
            f"INSERT INTO listeners (id, pseudonym) VALUES ({number}, 'l{number}')",
            "INSERT INTO assignments (id, pseudonym, listener_id, entry_hash, token_hash, state, list_number, "
            f"completion_code, consent_version, consented_at) VALUES ({number}, 'a{number}', {number}, 'e{number}', "
            f"'t{number}', 'finished', {number}, 'c{number}', 'v', '2026-03-01 12:00:00')",
        )
        if state:
            _run(
                engine,
                "INSERT INTO submissions (key, assignment_id, opening, status, seen_at, excluded) VALUES "
                f"('k{number}', {number}, 'o', '{state}', '2026-03-01 12:00:00', false)",
            )
    database.migrate(engine)
    standings = [row[0] for row in _rows(engine, "SELECT verification FROM assignments ORDER BY id")]
    assert standings == ["confirmed"] * 4 + ["unverified"] * 4
    assert [bool(row[0]) for row in _rows(engine, "SELECT listed FROM submissions ORDER BY id")] == [True] * 4 + [
        False
    ] * 3
    engine.dispose()


def _move(engine: Engine, revision: str, *, back: bool = False) -> None:
    with engine.execution_options(writes=True).begin() as connection:
        (command.downgrade if back else command.upgrade)(database._alembic(connection), revision)


def _run(engine: Engine, *statements: str) -> None:
    with engine.execution_options(writes=True).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _rows(engine: Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]
