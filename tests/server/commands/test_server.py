"""`rootnote server …` as a researcher runs it, with a real server process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text

import rootnote
from study.config import Study
from tests.server.conftest import SECRET
from tests.server.small_study import make_study, write_schedule, write_stimuli


def command(*arguments: Any, **environment: str) -> tuple[int, str]:
    """Run a command as the console script does: (exit status, everything printed)."""
    run = subprocess.run(
        [sys.executable, "-m", "rootnote", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env=_environment(environment),
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


def quick(*arguments: Any) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(rootnote.cli, [str(argument) for argument in arguments], catch_exceptions=True)


def _environment(extra: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOTNOTE_")}
    return inherited | {"ROOTNOTE_SECRET": SECRET} | extra


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    monkeypatch.delenv("ROOTNOTE_DATABASE_URL", raising=False)
    return make_study(tmp_path / "study", listeners=6, trials=2, toml="[prescreen]\nsteps = []\n")


class Serving:
    """A `rootnote server run` process."""

    def __init__(self, study: Study, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "rootnote", "server", "run", str(study.folder), "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(environment),
        )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"(http://\S+)/take", line):
                self.url = found[1]
                return
        raise AssertionError(f"the server ended with {self.process.wait()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def serve(study: Study) -> Iterator[Callable[..., Serving]]:
    servers: list[Serving] = []

    def start(**environment: str) -> Serving:
        servers.append(Serving(study, **environment))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


def listen(client: httpx.Client, address: str) -> dict[str, str]:
    """Hear the three clips of the present trial; the fields to send."""
    page = client.get(address).text
    for source in re.findall(r'data-clip="[XAB]"[^>]* src="([^"]+)"', page):
        client.get(source)
    position = re.search(r'data-position="(\d+)"', page)
    assert position
    heard = {f"plays_{clip}": "1" for clip in "xab"}
    time.sleep(0.32)  # as long as the three clips sound
    return {"position": position[1], "choice": "B", "response_ms": "320", **heard}


def begin(client: httpx.Client) -> str:
    """Go to the first trial; the listener's address."""
    entry = re.search(r'name="entry" value="([^"]+)"', client.get("/take").text)
    assert entry
    address = client.post("/take", data={"entry": entry[1]}).headers["location"]
    client.post(f"{address}/instructions")
    return str(address)


@pytest.mark.both_databases
@pytest.mark.slow
def test_acknowledged_answers_survive_kill_9(study: Study, serve: Callable[..., Serving], database_url: str) -> None:
    """Four listeners answer while the server is killed: what was acknowledged is there, once."""
    assert command("server", "migrate", study.folder, ROOTNOTE_DATABASE_URL=database_url)[0] == 0
    server = serve(ROOTNOTE_DATABASE_URL=database_url)
    acknowledged: list[tuple[str, str]] = []
    first_answers = threading.Event()

    def take_part() -> None:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            try:
                address = begin(client)
                while True:
                    fields = listen(client, address)
                    if client.post(f"{address}/trial", data=fields).status_code == 303:
                        acknowledged.append((address, fields["position"]))
                        if len(acknowledged) >= 3:
                            first_answers.set()
            except (httpx.TransportError, AssertionError):
                return  # the server was killed, or all trials are answered

    threads = [threading.Thread(target=take_part) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert first_answers.wait(30)
    server.stop(signal.SIGKILL)
    for thread in threads:
        thread.join()
    engine = create_engine(database_url)
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT assignment_id, position FROM responses")).all()
    engine.dispose()
    assert len(stored) == len(set(stored)) >= len(acknowledged) >= 3
    again = serve(ROOTNOTE_DATABASE_URL=database_url)
    with httpx.Client(base_url=again.url) as client:
        for address, position in acknowledged:
            page = client.get(address).text
            shown = re.search(r'data-position="(\d+)"', page)
            assert int(shown[1]) > int(position) if shown else 'data-step="questions"' in page
    assert again.stop() == 0


@pytest.mark.slow
def test_double_clicks_on_a_real_server(study: Study, serve: Callable[..., Serving]) -> None:
    assert quick("server", "migrate", study.folder).exit_code == 0
    server = serve()
    with httpx.Client(base_url=server.url, timeout=20) as client:
        address = begin(client)
        fields = listen(client, address)
        statuses: list[int] = []

        def click() -> None:
            statuses.append(client.post(f"{address}/trial", data=fields).status_code)

        threads = [threading.Thread(target=click) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        headers = client.get("/take").headers
    assert statuses == [303] * 8
    assert "server" not in headers
    status = json.loads(quick("server", "status", study.folder, "--json").output)
    assert status["responses"] == 1


def test_run_on_a_database_that_is_not_migrated(study: Study) -> None:
    status, output = command("server", "run", study.folder)
    assert status == 1
    assert "rootnote server migrate" in output
    assert "Traceback" not in output
    assert not (study.folder / "rootnote.sqlite3").exists()


def test_run_on_a_port_in_use(study: Study) -> None:
    assert quick("server", "migrate", study.folder).exit_code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, output = command("server", "run", study.folder, "--port", taken.getsockname()[1])
    assert status == 1
    assert len(output.splitlines()) == 1
    assert "--port" in output


@pytest.mark.parametrize("secret", ["", "too short"])
def test_run_without_a_secret(study: Study, secret: str) -> None:
    status, output = command("server", "run", study.folder, ROOTNOTE_SECRET=secret)
    assert status == 1
    assert "openssl rand -hex 32" in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@127.0.0.1:1/none", "mysql://me:hunter2@host/x", "hunter2", "sqlite://"]
)
def test_invalid_database_urls(study: Study, url: str) -> None:
    status, output = command("server", "run", study.folder, ROOTNOTE_DATABASE_URL=url)
    assert status == 1
    assert len(output.splitlines()) == 1
    assert "hunter2" not in output


def message(result: Result) -> str:
    return f"{result.output}{result.exception}"


def test_a_database_of_another_schedule(study: Study) -> None:
    from server.app import create_app
    from server.settings import read_settings

    assert quick("server", "migrate", study.folder).exit_code == 0
    create_app(study, read_settings(study, os.environ)).extensions["rootnote"].engine.dispose()
    write_schedule(study, 6, 2, triplets="second")
    write_stimuli(study)
    for name in ("run", "export"):
        refused = quick("server", name, study.folder)
        assert refused.exit_code == 1
        assert "another schedule" in message(refused)


def test_a_study_without_consent(study: Study) -> None:
    (study.folder / "consent.md").write_text(" \n")
    refused = quick("server", "run", study.folder)
    assert refused.exit_code == 1
    assert "consent.md" in message(refused)


def test_stale_stimuli_are_refused(study: Study) -> None:
    assert quick("server", "migrate", study.folder).exit_code == 0
    write_schedule(study, 6, 2, triplets="second")
    refused = quick("server", "run", study.folder)
    assert refused.exit_code == 1
    assert "rootnote study build" in message(refused)


def test_migrate_status_codes_links_and_export(study: Study, tmp_path: Path) -> None:
    for _ in range(2):  # migrating a migrated database is no error
        assert re.search(r"revision \d{4}\.", quick("server", "migrate", study.folder).output)
    assert "Places" in quick("server", "status", study.folder).output
    assert quick("server", "codes", study.folder).output == "code,outcome,usd\n"
    links = quick("server", "links", study.folder, "3", "--url", "https://example.org/").output.split()
    assert len(set(links)) == 3
    assert all(link.startswith("https://example.org/take?link=") for link in links)
    written = json.loads(quick("server", "export", study.folder, "--out", tmp_path / "out", "--json").output)
    assert (written["responses"], written["completed"]) == (0, 0)
    assert Path(written["csv"]).is_file()


def test_rehearsals_have_their_own_database(study: Study) -> None:
    assert quick("server", "migrate", study.folder, "--rehearsal", "--fresh").exit_code == 0
    assert (study.folder / "rehearsal.sqlite3").is_file()
    assert not (study.folder / "rootnote.sqlite3").exists()
    assert quick("server", "migrate", study.folder, "--fresh").exit_code == 2


def test_migrations_match_the_models() -> None:
    assert quick("server", "migrate", "--check").exit_code == 0
