"""Every answer that was acknowledged is there, none twice, whatever breaks meanwhile.

The long form, with more of each fault, is benchmarks/faults.py.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.identity.tokens import TokenSigner
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.faults import SOCKET, CutLine, Troubles, listen_through, own_postgres
from tests.server.many_listeners import (
    Booked,
    ManyListener,
    compare_with_database,
    make_load_study,
    prepare,
    run_apart,
)
from tests.server.real_server import RealServer, real_server

WHOLE = {"lost": 0, "changed": 0, "doubled": 0, "overbooked": 0}


def assert_whole(booked: Booked, database_url: str, least: int) -> None:
    found = compare_with_database(booked, database_url)
    assert found.pop("acknowledged") >= least
    assert found == WHOLE


@pytest.mark.slow
def test_kills_stops_and_cuts_on_postgresql(tmp_path: Path) -> None:
    study = make_load_study(tmp_path / "study", 2000, trials=5)

    async def run(server: RealServer, sockets: str) -> Booked:
        back = CutLine(to_path=f"{postgres.sockets}/{SOCKET}")
        front = CutLine(to_port=server.port)
        async with back.at(f"{sockets}/{SOCKET}"), front.at():
            await asyncio.to_thread(server.start)
            trouble = Troubles(server, front, postgres, back)
            faults = [trouble.cut_listeners, trouble.kill_worker, trouble.cut_database, trouble.stop_database]
            faults += [trouble.kill_all, trouble.cut_listeners]
            return await listen_through(trouble, faults, 16, hearing=0.01, thinking=0.05, pause=0.3)

    with own_postgres() as postgres, tempfile.TemporaryDirectory() as sockets, (tmp_path / "log").open("w") as log:
        url = postgres.create("faults")
        prepare(url)
        server = RealServer(study.folder, postgres.url(sockets, "faults"), log)
        try:
            booked = run_apart(run(server, sockets))
        finally:
            server.kill()
        assert_whole(booked, url, least=50)
        assert booked.again > 10
        assert set(booked.ends) == {"done"}


@pytest.mark.slow
def test_kills_on_sqlite(tmp_path: Path) -> None:
    study, url = make_load_study(tmp_path / "study", 2000, trials=5), f"sqlite:///{tmp_path / 'answers.sqlite3'}"
    prepare(url)

    async def run(server: RealServer) -> Booked:
        front = CutLine(to_port=server.port)
        async with front.at():
            trouble = Troubles(server, front)
            faults = [trouble.kill_worker, trouble.kill_all, trouble.cut_listeners]
            return await listen_through(trouble, faults, 8, hearing=0.01, thinking=0.1, pause=0.3)

    with real_server(study.folder, url, tmp_path / "log") as server:
        booked = run_apart(run(server))
    assert_whole(booked, url, least=30)
    assert set(booked.ends) == {"done"}


@pytest.mark.slow
def test_a_full_disk_loses_no_answer_that_was_acknowledged(tmp_path: Path) -> None:
    study, url = make_load_study(tmp_path / "study", 60, trials=5), f"sqlite:///{tmp_path / 'answers.sqlite3'}"
    prepare(url)
    booked = Booked()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))  # less than SQLite's log grows to

    async def listen(port: int) -> list[object]:
        listeners = [ManyListener(port, index, booked, thinking=0.02, patience=2.0) for index in range(8)]
        return await asyncio.gather(*(each.take() for each in listeners), return_exceptions=True)

    with (tmp_path / "log").open("w") as log:
        server = RealServer(study.folder, url, log)
        try:
            server.start(preexec=limit)
            ends = run_apart(listen(server.port))
            assert server.status("/healthz") == 200  # it still answers, and says that it cannot save
        finally:
            server.kill()
    assert any(isinstance(end, AssertionError) for end in ends), "the disk was never full"
    assert_whole(booked, url, least=10)
    with real_server(study.folder, url, tmp_path / "log2") as server:
        assert run_apart(ManyListener(server.port, 99, booked).take()) == "done"


def test_an_entry_outlives_a_clock_set_back_but_not_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, now = TokenSigner(SECRET), time.time()

    def read(age: float) -> bool:
        with monkeypatch.context() as patched:
            patched.setattr("itsdangerous.timed.time.time", lambda: now - age)
            signed = signer.sign_ticket(signer.new_ticket("consent"))  # type: ignore[arg-type]
        return signer.read_ticket(signed) is not None

    assert [read(age) for age in (0, 23 * 3600, 25 * 3600, -2, -1e6)] == [True, True, False, True, True]


@pytest.mark.parametrize("jump", [-60 * 24 * 3, 60 * 24 * 400, -1])
def test_a_clock_that_jumps_loses_nothing(make_site: Callable[..., Site], clock: FakeClock, jump: float) -> None:
    site = make_site(listeners=3)
    walker = site.walker().begin().answer()
    clock.advance(jump)
    walker.answer("B")
    other = site.walker().take_part()
    clock.advance(-2 * jump)
    assert walker.listen().finish().step == "done"
    assert other.reload().step == "done"
    rows = site.query("SELECT assignment_id, position FROM responses")
    assert len(rows) == len({tuple(row) for row in rows}) == 6
    assert len(site.query("SELECT * FROM places WHERE filled")) == 2
