"""A backup contains the whole study, is verified when it is written, and can be restored."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, inspect, make_url, text

import rootnote
from server.app import create_app
from server.db import database
from server.db.backup import backup, find_backups
from server.db.key_backup import back_up_key
from server.settings import Settings
from tests.server.conftest import SECRET, Site
from tests.server.small_study import make_study


def server(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(rootnote.cli, ["server", command, *(str(argument) for argument in arguments)])


def rows(url: str) -> dict[str, list[str]]:
    """The content of a database as text, by table."""
    engine = create_engine(url)
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        found = {name: sorted(map(repr, connection.execute(text(f"SELECT * FROM {name}")))) for name in names}
    engine.dispose()
    return found


@pytest.fixture
def empty(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of a second, empty database."""
    url = make_url(database_url)
    if url.drivername == "sqlite":
        return f"sqlite:///{tmp_path / 'restored.sqlite3'}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"{url.database}_restored"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.mark.both_databases
def test_a_restored_study_is_complete_and_continues(
    site: Site, empty: str, tmp_path: Path, client_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken while a listener is in their trials; then the database is lost, and they go on from the same link."""
    site.walker().take_part()
    midway = site.walker().begin().answer("B")
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", site.database_url)
    folder = tmp_path / "backups"
    done = server("backup", site.study.folder, "--to", folder)
    assert done.exit_code == 0, done.output
    [path] = find_backups(folder)
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
    before = rows(site.database_url)
    midway.listen().finish()
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", empty)
    kept = site.study.key.read_bytes()
    site.study.key.unlink()  # a new host gets the study folder from where it was built, without a key by mistake
    done = server("restore", path, site.study.folder)
    assert done.exit_code == 0, done.output
    assert (site.study.key.read_bytes(), stat.S_IMODE(site.study.key.stat().st_mode)) == (kept, 0o600)
    assert rows(empty) == before
    app = create_app(site.study, Settings(make_url(empty), SECRET), clock=site.clock)
    site.app = app
    midway.client = site.walker().client
    assert midway.reload().step == "trial"
    assert midway.listen().finish().step == "done"
    # Numbers go on where they were, and the log still only grows.
    with pytest.raises(Exception, match="only added to"), app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(
            text("INSERT INTO log (at, who, what, detail, reason) VALUES (:at, 'a', 'b', '', '')"),
            {"at": "2026-03-01 12:00:00+00:00"},
        )
        connection.execute(text("DELETE FROM log"))
    app.extensions["rootnote"].engine.dispose()
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    refused = server("restore", path, site.study.folder)
    assert refused.exit_code == 1
    assert "already" in str(refused.exception)


def test_old_backups_are_deleted_and_nothing_else(site: Site, tmp_path: Path, client_programs: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "notes.dump").write_text("mine")
    paths = [backup(make_url(site.database_url), folder, 2, datetime(2026, 3, day, tzinfo=UTC)) for day in (1, 3, 2, 4)]
    assert find_backups(folder) == [paths[3], paths[1]]
    assert sorted(path.name for path in folder.iterdir()) == sorted([paths[1].name, paths[3].name, "notes.dump"])
    (folder / "rootnote-20260301T000000Z.key").write_text("of a backup that is gone")
    back_up_key(site.study, paths[3])
    assert [path.name for path in folder.glob("*.key")] == [paths[3].with_suffix(".key").name]


def test_restore_refuses_an_unclosed_sqlite_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would play that rest into what was restored."""
    study, target = make_study(tmp_path / "study").folder, tmp_path / "answers.sqlite3"
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", f"sqlite:///{target}")
    engine = database.connect(make_url(f"sqlite:///{target}"))
    database.migrate(engine)
    engine.dispose()
    assert server("backup", study, "--to", tmp_path / "backups").exit_code == 0
    [path] = find_backups(tmp_path / "backups")
    target.rename(target.with_name("answers.sqlite3-wal"))
    refused = server("restore", path, study)
    assert refused.exit_code == 1 and "answers.sqlite3-wal" in str(refused.exception)
    assert not target.exists()


@pytest.mark.both_databases
def test_backup_and_restore_errors(
    site: Site, empty: str, tmp_path: Path, client_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = make_url(site.database_url), tmp_path / "backups"
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", site.database_url)
    assert server("backup", site.study.folder, "--to", folder).exit_code == 0
    [path] = find_backups(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    monkeypatch.setenv("ROOTNOTE_DATABASE_URL", empty)
    cut = server("restore", path, site.study.folder)
    assert cut.exit_code == 1
    assert "\n" not in str(cut.exception)
    assert "Rootnote" in type(cut.exception).__name__
    assert str(tmp_path / "none") in str(server("restore", tmp_path / "none", site.study.folder).exception)
    other = path.with_suffix(".txt")
    other.write_text("a text")
    assert other.name in str(server("restore", other, site.study.folder).exception)
    if url.drivername != "sqlite":
        assert rows(empty) == {}
        monkeypatch.setenv("ROOTNOTE_DATABASE_URL", url.set(database="none").render_as_string(hide_password=False))
        assert 'database "none" does not exist' in str(server("backup", site.study.folder, "--to", folder).exception)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "postgresql-client" in str(server("backup", site.study.folder, "--to", folder).exception)
    assert len(list(folder.iterdir())) == 3  # the backup, its key, the text: nothing half-written is left
