"""Served by gunicorn, in several processes, as it is deployed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest
from sqlalchemy import create_engine, make_url, text

from server.db import database
from server.participant.arrival_views import TOKEN_ADDRESS_LIMIT
from tests.server.assignments.test_lifecycle import run_together
from tests.server.conftest import SECRET, Site
from tests.server.real_server import CONFIG, ROOT, real_server
from tests.server.small_study import make_study

# A server that is ready, and starts when it is told to.
STARTS = """
import sys
from pathlib import Path
from sqlalchemy import make_url
from server.app import create_app
from server.settings import Settings
from study.config import load_study
folder, url, secret = sys.argv[1:]
study = load_study(Path(folder))
print("ready", flush=True)
sys.stdin.readline()
create_app(study, Settings(make_url(url), secret)).extensions["rootnote"].engine.dispose()
"""


@pytest.mark.slow
@pytest.mark.both_databases
def test_servers_that_start_at_once_make_the_places_once(tmp_path: Path, database_url: str) -> None:
    # Processes, as they are when deployed: CPython 3.11 compiles an application's routes wrongly in threads now and
    # then ("AST constructor recursion depth mismatch").
    study, url = make_study(tmp_path / "study", listeners=30), make_url(database_url)
    engine = database.connect(url)
    database.migrate(engine)
    command = [sys.executable, "-c", STARTS, str(study.folder), database_url, SECRET]
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True))
            for _ in range(4)
        ]
        for server in servers:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
        for server in servers:
            assert server.stdin is not None
            server.stdin.write("\n")
            server.stdin.flush()
        assert [server.wait(timeout=60) for server in servers] == [0] * 4
    with engine.connect() as connection:
        numbers = connection.execute(text("SELECT list_number FROM places ORDER BY 1")).scalars().all()
        begun = connection.execute(text("SELECT count(*) FROM log WHERE number = 1")).scalar()
    engine.dispose()
    assert numbers == list(range(30))
    assert begun == 1


@pytest.mark.slow
def test_gunicorn_serves_from_several_processes_and_stops_in_order(tmp_path: Path, database_url: str) -> None:
    study = make_study(tmp_path / "study").folder
    url = make_url(database_url)
    engine = database.connect(url)
    database.migrate(engine)
    engine.dispose()
    log = tmp_path / "log"
    with real_server(study, database_url, log) as server:
        statuses = run_together(24, lambda _: server.status("/take"))
        assert statuses == [200] * 24
        assert server.status("/readyz") == 200
        assert server.status("/a/nobody") == 404
        assert server.status(f"/take?token={'x' * TOKEN_ADDRESS_LIMIT}") == 200, "a signed arrival is long"
        assert server.stop() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(line.get("route") == "participant.take" for line in lines) == 25
    assert "/a/" not in log.read_text()


@pytest.mark.slow
def test_a_server_that_cannot_start_says_so_in_one_sentence(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study").folder
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ROOTNOTE_STUDY": str(study), "ROOTNOTE_SECRET": "short"}
    environment.pop("ROOTNOTE_DATABASE_URL", None)

    def said() -> str:
        command = [sys.executable, "-m", "gunicorn", "-c", str(CONFIG), "--bind", "127.0.0.1:0"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        return ended.stderr.strip().splitlines()[-1]

    assert said().startswith("rootnote: the environment variable ROOTNOTE_SECRET has fewer than 32 characters")
    environment["ROOTNOTE_SECRET"] = SECRET
    assert "does not exist yet; run `rootnote server migrate" in said()


@pytest.mark.both_databases
def test_reading_waits_for_nobody_who_writes(make_site: Callable[..., Site]) -> None:
    """On SQLite one writes at a time: pages and sounds heard before must not queue behind that one."""
    site = make_site()
    walker = site.walker().begin().hear_all()
    sounds = [walker.sound(clip) for clip in "XAB"]
    begin = "BEGIN IMMEDIATE" if site.app.extensions["rootnote"].engine.dialect.name == "sqlite" else "BEGIN"
    other = create_engine(make_url(site.database_url), isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        connection.exec_driver_sql(begin)
        connection.exec_driver_sql("UPDATE servings SET fetched_at = fetched_at")
        assert [walker.client.get(sound).status_code for sound in sounds] == [200] * 3
        assert walker.reload().step == "trial"
        connection.exec_driver_sql("ROLLBACK")
    other.dispose()
