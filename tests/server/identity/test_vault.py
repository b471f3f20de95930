"""Nothing but the vault holds who anybody is: planted ids are looked for everywhere, and go when their time comes."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, inspect, make_url, select, text
from sqlalchemy.orm import Session
from werkzeug.test import Client

from server.audit import study_control
from server.db import backup, database
from server.db.models import Assignment, Launch, Listener, MarketplaceSubmission, Payment, VaultEntry
from server.privacy import erasure, retention
from server.web.logs import JsonLines
from tests.deploy.conftest import client_programs  # noqa: F401 (a fixture)
from tests.server.commands.test_recruiting import Ask, ask
from tests.server.commands.test_server import quick
from tests.server.conftest import FakeClock, Site
from tests.server.desk.desk_client import PAGES, Visit, add_researcher
from tests.server.recruiting.mturk_study import NO_PRESCREEN, MTurkStudy, make_mturk

__all__ = ["ask", "make_mturk"]
MakeMTurk = Callable[..., MTurkStudy]
WORKERS = ("APLANTEDFINISHES1", "APLANTEDLEAVES22", "APLANTEDERASED33")
ADDRESS = "203.0.113.77"
BROWSER = "PlantedBrowser/77.6 (Planted OS 12)"
PLANTED = re.compile(f"APLANTED|{re.escape(ADDRESS)}|PlantedBrowser|Planted OS", re.IGNORECASE)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Everything that the server would log, as it would."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root, ours = logging.getLogger(), logging.getLogger("server")
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)  # as server.web.logs configures it
    yield stream
    root.removeHandler(handler)
    ours.setLevel(level)


def rehearse(mturk: MTurkStudy, ask: Ask) -> list[str]:
    """A launch to its end, with one who finishes, one who leaves and one who is erased; every page that was seen."""
    assert ask(mturk, "open", "--yes")[0] == 0
    seen, browser = [], {"REMOTE_ADDR": ADDRESS, "HTTP_USER_AGENT": BROWSER}
    for name in WORKERS:
        walker = mturk.worker(name)
        walker.client.open = partial(walker.client.open, environ_base=browser)
        seen.append(walker.html)
        if name == WORKERS[1]:
            walker.agree().go("instructions")
            seen += [walker.html, walker.go("leave", confirm="yes").html]
            continue
        walker.take_part()
        seen.append(walker.html)
        if name == WORKERS[2]:
            seen.append(walker.go("withdraw", confirm="yes").html)
        walker.hand_in()
        seen.append(walker.reload().html)
    wrong = "/take?workerId=APLANTEDWRONG&hitId=x&assignmentId=APLANTEDPLACE"
    for address in (wrong, "/a/APLANTED", "/audio/APLANTED"):
        reply = Client(mturk.site.app).get(address, environ_base=browser)
        assert reply.status_code in (400, 404)
        seen.append(reply.text + str(reply.headers))
    return seen


def said_by_commands(mturk: MTurkStudy, ask: Ask) -> list[str]:
    """What every command prints that a researcher gives then."""
    said = [
        ask(mturk, "sync"),
        ask(mturk, "pay", "--yes"),
        ask(mturk, "sync"),
        ask(mturk, "status"),
        ask(mturk, "codes"),
    ]
    said += [ask(mturk, "pay", "--to-floor", "--yes"), ask(mturk, "close", "--yes"), ask(mturk, "sync")]
    said += [
        ask(mturk, "audit", "--all"),
        ask(mturk, "audit", "--verify"),
        ask(mturk, "export"),
        ask(mturk, "consents"),
    ]
    assert [status for status, _ in said] == [0] * len(said), said
    return [words for _, words in said]


def held(url: str) -> Iterator[tuple[str, str]]:
    """Every value of every table as the database gives it."""
    engine = create_engine(url)
    with engine.connect() as connection:
        for name in inspect(connection).get_table_names():
            yield name, "\n".join(repr(row) for row in connection.execute(text(f"SELECT * FROM {name}")))
    engine.dispose()


@pytest.mark.slow
@pytest.mark.both_databases
@pytest.mark.usefixtures("client_programs")
def test_nothing_but_the_vault_holds_a_planted_identity(
    make_mturk: MakeMTurk, ask: Ask, lines: io.StringIO, tmp_path: Path
) -> None:
    mturk = make_mturk(listeners=3, trials=1, toml=NO_PRESCREEN)
    add_researcher(mturk.site)
    pages = rehearse(mturk, ask)
    pages += said_by_commands(mturk, ask)
    visit = Visit(mturk.site).signed_in()
    pages += [visit.page(name) for name in PAGES]
    with database.reading(engine_of(mturk)) as session:
        pages += [visit.page(f"listeners/{name}") for name in session.scalars(select(Listener.pseudonym))]
    found = {f"page {number}": page for number, page in enumerate(pages)}
    found["log"] = lines.getvalue()
    url = mturk.site.database_url
    found |= {f"table {name}": value for name, value in held(url)}
    saved = backup.backup(make_url(url), tmp_path / "backups", keep=1)
    for path in [*mturk.site.study.folder.rglob("*"), saved]:
        if path.is_file():
            found[f"file {path.name}"] = path.read_bytes().decode("latin-1")
    assert len(lines.getvalue()) > 1000
    assert {name: PLANTED.findall(value) for name, value in found.items() if PLANTED.search(value)} == {}
    # The same search finds what is planted where it is: it can fail.
    with database.reading(engine_of(mturk)) as session:
        opened = [mturk.context.vault.open(row.sealed) for row in session.scalars(select(VaultEntry))]
    assert {one.worker for one in opened if one} <= set(WORKERS)
    assert any(PLANTED.search(str(one)) for one in opened)


def engine_of(mturk: MTurkStudy) -> Engine:
    engine = mturk.site.app.extensions["rootnote"].engine
    assert isinstance(engine, Engine)
    return engine


def marks(session: Session) -> set[str]:
    """What a marketplace, or who knows the secret, could join to a worker."""
    columns = (Assignment.token_hash, Assignment.entry_hash, MarketplaceSubmission.key, Payment.token)
    return {str(mark) for column in columns for mark in session.scalars(select(column))}


# ------------------------------------------------------------------ retention


def look(mturk: MTurkStudy) -> retention.RetentionStatus:
    with database.reading(engine_of(mturk)) as session:
        return retention.status(session, mturk.context.config, mturk.clock())


def keep_house(mturk: MTurkStudy) -> int:
    return retention.purge_automatically(engine_of(mturk), mturk.context.config, mturk.context.signer, mturk.clock)


@pytest.mark.both_databases
def test_identities_go_thirty_days_after_the_last_payment(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN + "[privacy]\nidentity_days = 30\n")
    mturk.launch()
    codes = []
    for name in WORKERS[:2]:
        codes.append(mturk.worker(name).take_part().hand_in().reload().code)
    assert look(mturk).waiting == "the study is not closed"
    mturk.sync()
    mturk.wait(60)
    mturk.sync()
    with database.writing(engine_of(mturk)) as session, session.begin():
        study_control.close(session, "anna", "it is complete", mturk.clock())
    state = look(mturk)
    assert (state.stored, state.waiting) == (2, "")
    with database.reading(engine_of(mturk)) as session:
        keys = marks(session)
    assert len(keys) > 4
    assert state.due == mturk.clock() + timedelta(days=30)
    mturk.wait(30 * 24 * 60 - 1)
    assert keep_house(mturk) == 0
    mturk.wait(1)
    assert keep_house(mturk) == 2
    assert keep_house(mturk) == 0  # once
    assert look(mturk) == retention.RetentionStatus(0, look(mturk).due, "", 2, mturk.clock())
    with database.reading(engine_of(mturk)) as session:
        assert session.scalar(select(VaultEntry)) is None
        assert session.scalars(select(Listener.worker_hash)).all() == [None, None]
        kept = " ".join(session.scalars(select(Assignment.completion_code)))
        assert not keys & marks(session)
    assert not any(code in kept for code in codes)
    # Their owner, and nobody else, can have their answers erased still.
    reply = Client(mturk.site.app).post("/withdraw", data={"code": codes[0], "confirm": "yes"})
    assert "Your answers are erased" in reply.text


def test_nothing_is_due_while_somebody_is_owed(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN + "[pay]\nwithdrawn = 0.50\n")
    mturk.launch()
    walker = mturk.worker(WORKERS[0]).agree()
    walker.go("leave", confirm="yes", answers="erase")
    mturk.worker(WORKERS[1]).take_part().hand_in()
    mturk.sync()
    with database.writing(engine_of(mturk)) as session, session.begin():
        study_control.close(session, "anna", "enough people took part", mturk.clock())
    assert "not settled" in look(mturk).waiting or "not been paid" in look(mturk).waiting
    mturk.wait(60 * 24 * 400)
    assert keep_house(mturk) == 0  # however long it takes
    assert look(mturk).stored == 2


def test_who_was_erased_and_is_paid_is_forgotten_at_once(make_mturk: MakeMTurk) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN)
    mturk.launch()
    walker = mturk.worker(WORKERS[0]).take_part()
    walker.go("withdraw", confirm="yes")
    assert keep_house(mturk) == 0  # without their id nobody could be paid
    walker.hand_in()
    mturk.sync()
    assert mturk.rewards() == [WORKERS[0]]
    assert keep_house(mturk) == 1
    with database.reading(engine_of(mturk)) as session:
        assert session.scalar(select(VaultEntry)) is None
        erased = session.scalars(select(Assignment)).one()
        assert erasure.is_settled(session, erased, mturk.context.config.pay)
    again = mturk.accept(WORKERS[0])
    assert again is None or "taken" in mturk.arrive(again).html.lower()  # nobody takes part twice by being erased


def test_purge_by_command(make_mturk: MakeMTurk, ask: Ask) -> None:
    mturk = make_mturk(listeners=1, trials=1, toml=NO_PRESCREEN)
    assert ask(mturk, "open", "--yes")[0] == 0
    mturk.worker(WORKERS[0]).take_part().hand_in()
    assert ask(mturk, "purge") == (0, "Nothing is due: the study is not closed.\n")
    status, refusal = ask(mturk, "purge", "--now", "--yes")
    assert (status, "the study is not closed" in refusal) == (1, True)
    assert ask(mturk, "close", "--yes")[0] == 0
    assert ask(mturk, "sync")[0] == 0
    told = json.loads(ask(mturk, "status", "--json")[1])["identities"]
    assert told["kept"] == 1
    assert told["due"].endswith(" UTC")
    assert "identities of 1 participant permanently?" in ask(mturk, "purge", "--now")[1]
    status, output = ask(mturk, "purge", "--now", "--yes", "--reason", "the board asked for it")
    assert (status, output.splitlines()[0]) == (0, "Deleted the identities of 1 participant.")
    assert ask(mturk, "purge") == (0, "No identities are stored.\n")
    assert json.loads(ask(mturk, "status", "--json")[1])["identities"]["kept"] == 0
    assert "the board asked for it" in ask(mturk, "audit")[1]
    paid = mturk.paid
    assert ask(mturk, "sync")[0] == 0
    assert mturk.paid == paid  # nothing is booked a second time
    assert "new database" in ask(mturk, "open", "--yes")[1]


def test_people_of_plain_links_are_waited_for_too(site: Site, clock: FakeClock) -> None:
    """Those who are paid by hand, by their codes: what `server open` began is in the books."""
    site.walker().consent("?worker=ann").screen().hear("volume")
    walker = site.walker().begin().listen().finish()
    engine, config = site.app.extensions["rootnote"].engine, site.study.config
    door = site.app.extensions["rootnote"].signer
    with database.writing(engine) as session, session.begin():
        terms: dict[str, str] = {}
        session.add(Launch(id=1, name="x", live=False, terms=terms, budget_cents=1000, began_at=clock()))
        study_control.close(session, "anna", "everybody was heard", clock())
    clock.advance(60 * 24 * 40)
    assert retention.purge_automatically(engine, config, door, clock) == 0
    with database.writing(engine) as session, session.begin():
        assert "1 listener has not been paid" in retention.status(session, config, clock()).waiting
        run = session.scalars(select(Assignment).where(Assignment.completion_code == walker.code)).one()
        paid = {"cents": 150, "fee_cents": 0, "state": "paid", "intended_at": clock(), "paid_at": clock()}
        session.add(Payment(token="t", assignment_id=run.id, kind="reward", **paid))
    assert retention.purge_automatically(engine, config, door, clock) == 0
    clock.advance(60 * 24 * 31)
    assert retention.purge_automatically(engine, config, door, clock) == 1


# ------------------------------------------------------------------ asked for by e-mail, with the worker's id


def test_disclosed_and_erased_by_the_id_at_the_marketplace(make_mturk: MakeMTurk, ask: Ask) -> None:
    mturk = make_mturk(listeners=2, trials=1, toml=NO_PRESCREEN)
    assert ask(mturk, "open", "--yes")[0] == 0
    for name in WORKERS[:2]:
        mturk.worker(name).take_part().hand_in()
    assert ask(mturk, "sync")[0] == 0
    told = json.loads(ask_of(mturk, ask, "disclose", WORKERS[0], "--worker"))
    assert told["identity"]["worker"] == WORKERS[0]
    assert [(one["kind"], one["amount"], one["currency"], one["state"]) for one in told["payments"]] == [
        ("reward", 1.5, "USD", "paid")
    ]
    assert WORKERS[1] not in json.dumps(told)
    said = ask_of(mturk, ask, "erase", WORKERS[0], "--worker", "--yes")
    assert "Erased the answers" in said
    assert "stays encrypted" not in said  # they are paid
    with database.reading(engine_of(mturk)) as session:
        assert len(session.scalars(select(VaultEntry)).all()) == 1


def ask_of(mturk: MTurkStudy, ask: Ask, name: str, whom: str, *options: str) -> str:
    """`rootnote server NAME WHOM STUDY`."""
    ask(mturk, "status")  # sets the environment
    run = quick("server", name, whom, mturk.site.study.folder, "--rehearsal", *options)
    assert run.exit_code == 0, run.exception
    return run.output
