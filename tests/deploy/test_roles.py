"""The server's database role can run a study, and can neither drop, alter, truncate nor create anything."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from server.app import create_app
from server.db import database
from server.db.backup import backup, restore
from server.settings import Settings
from tests.deploy.conftest import Roles
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.small_study import make_study

FORBIDDEN = (
    "DROP TABLE responses",
    "ALTER TABLE responses ADD COLUMN more text",
    "ALTER TABLE log DISABLE TRIGGER ALL",
    "DROP TRIGGER log_no_change ON log",
    "TRUNCATE responses CASCADE",
    "CREATE TABLE mine (a int)",
    "CREATE TEMPORARY TABLE mine (a int)",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "SET ROLE rootnote_owner",
    "ALTER TABLE responses OWNER TO rootnote_app",
    "CREATE OR REPLACE FUNCTION refuse_log_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "COPY responses TO PROGRAM 'cat'",
    "SELECT pg_read_file('PG_VERSION')",
    "SET session_replication_role = replica",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'much')",
    "DELETE FROM log_head",
    "DELETE FROM log",
)


def refused(url: URL, statement: str) -> bool:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:  # a trigger refuses the last two
        return "InsufficientPrivilege" in str(error) or "RaiseException" in str(error)
    finally:
        engine.dispose()
    return False


def test_the_app_runs_a_study_and_may_do_nothing_else(roles: Roles, tmp_path: Path, clock: FakeClock) -> None:
    owner, app_role = roles.prepare("roles_of_tests")
    engine = database.connect(owner)
    database.migrate(engine)
    engine.dispose()
    study = make_study(tmp_path / "study", listeners=2, trials=3)
    app = create_app(study, Settings(app_role, SECRET), clock=clock)
    site = Site(study, app, clock, str(app_role))
    assert site.walker().take_part().step == "done"
    assert [statement for statement in FORBIDDEN if not refused(app_role, statement)] == []
    # The same role makes the backup; restored by the owner, it serves the app again.
    path = backup(app_role, tmp_path / "backups", 1)
    app.extensions["rootnote"].engine.dispose()
    owner, app_role = roles.prepare("roles_of_tests_restored")
    restore(owner, path)
    app = create_app(study, Settings(app_role, SECRET), clock=clock)
    site = Site(study, app, clock, str(app_role))
    assert site.walker().take_part().step == "done"
    assert site.query("SELECT count(*) FROM responses") == [(6,)]
    assert [statement for statement in FORBIDDEN if not refused(app_role, statement)] == []
    app.extensions["rootnote"].engine.dispose()
