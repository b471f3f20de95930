"""Two who write the same row at once: a worker who arrives, the same worker in another window, and `server sync`.

And connections that are closed under the server. Of the two, the first has written and not committed when the second
comes to the same row; on PostgreSQL the first goes on only when the second waits for it, on SQLite the second waits
from its BEGIN on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, create_engine, delete, make_url, select, text
from sqlalchemy.orm import Session

from server.db import database
from server.db.models import Assignment, MarketplaceSubmission, VaultEntry
from server.db.upsert import find_or_add
from server.recruiting import snapshot
from server.recruiting.marketplace_entry import MarketplaceEntry
from server.simulation.fake_mturk import AcceptedHit
from tests.server.conftest import Site
from tests.server.recruiting.mturk_study import NO_PRESCREEN, MTurkStudy, make_mturk, query_of

__all__ = ["make_mturk"]
Act = Callable[[Session], None]
DEADLINE = 60.0


def run_both(mturk: MTurkStudy, first: Act, second: Act) -> None:
    """Run two transactions, of which the second comes while the first has not committed."""
    failed: list[BaseException] = []

    def run_second() -> None:
        try:
            with mturk.context.writing() as session:
                second(session)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run_second)
    with mturk.context.writing() as session:
        first(session)
        session.flush()
        thread.start()
        wait_for_the_second(mturk.site.database_url, thread)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert failed == []


def wait_for_the_second(url: str, thread: threading.Thread) -> None:
    if make_url(url).get_backend_name() == "sqlite":
        return
    engine: Engine = create_engine(make_url(url))
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    end = time.monotonic() + DEADLINE
    while True:
        with engine.connect() as connection:
            if connection.execute(query).scalar_one():
                break
        assert thread.is_alive(), "the second did not wait for the first"
        assert time.monotonic() < end
        time.sleep(0.01)
    engine.dispose()


@pytest.fixture
def mturk(make_mturk: Callable[..., MTurkStudy]) -> MTurkStudy:
    """A worker has a run, but neither the place that they hold nor who they are is written down yet."""
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    return mturk


def arriving(mturk: MTurkStudy, accepted: AcceptedHit) -> Act:
    entry = mturk.site.app.extensions["rootnote"].marketplace_entry
    assert isinstance(entry, MarketplaceEntry)
    arrival = entry.marketplace.arrive(query_of(accepted.external_url))

    def note(session: Session) -> None:
        entry.record_arrival(session, session.scalars(select(Assignment)).one(), arrival, mturk.clock())

    return note


def synchronising(mturk: MTurkStudy) -> Act:
    began, found = mturk.clock(), snapshot.fetch_snapshot(mturk.context)
    return lambda session: snapshot.record_submissions(session, mturk.context, found.postings, began)


@pytest.mark.both_databases
@pytest.mark.parametrize("order", ["the worker first", "sync first", "the worker twice"])
def test_a_worker_arrives_while_sync_hears_of_them(mturk: MTurkStudy, order: str) -> None:
    accepted = mturk.worker("A1").agree().accepted
    with mturk.context.writing() as session:
        session.execute(delete(MarketplaceSubmission))
        session.execute(delete(VaultEntry))
    note = arriving(mturk, accepted)
    mturk.market.submit(accepted.assignment_id)
    sync = synchronising(mturk)
    first, second = {"the worker first": (note, sync), "sync first": (sync, note)}.get(order, (note, note))
    run_both(mturk, first, second)
    with mturk.context.reading() as session:
        assert len(session.scalars(select(MarketplaceSubmission)).all()) == 1
        assert len(session.scalars(select(VaultEntry)).all()) == 1


@pytest.mark.both_databases
@pytest.mark.parametrize("lock", [False, True])
def test_a_row_is_made_once_whoever_comes_first(mturk: MTurkStudy, lock: bool) -> None:
    rows = []

    def add(session: Session) -> None:
        key, values = {"pseudonym": "somebody"}, {"sealed": "x", "changed_at": mturk.clock()}
        rows.append(find_or_add(session, VaultEntry, key, values, lock=lock).sealed)

    run_both(mturk, add, add)
    assert rows == ["x", "x"]


# ------------------------------------------------------------------ connections


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("idle", [0.0, database.IDLE_SECONDS])
def test_a_connection_that_postgresql_closed_is_not_used(
    site: Site, idle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE_SECONDS", idle)  # 0: each is asked, as one is that lay idle for long
    walker = site.walker().begin()
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    other = create_engine(make_url(site.database_url), isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        assert connection.execute(text(f"SELECT count(pg_terminate_backend(pid)) {others}")).scalar_one()
        end = time.monotonic() + DEADLINE
        while connection.execute(text(f"SELECT count(*) {others}")).scalar_one():
            assert time.monotonic() < end
            time.sleep(0.01)
    other.dispose()
    assert walker.reload().step == "trial"
    walker.answer()
    assert walker.step == "trial"
