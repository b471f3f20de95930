"""Who gets in from Prolific: forged ids, forged submissions, real listeners at the same time; over HTTP.

The forger has one network address and many ids, and may know a real worker's. `make soak` sends a thousand of each.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update
from werkzeug.test import Client, TestResponse

from server.audit import study_control
from server.db.enums import SubmissionStatus
from server.db.models import Posting
from server.export.responses import export
from server.privacy import retention
from server.privacy.erasure import delete_erased_identities
from server.recruiting import confirmation
from server.recruiting.due import all_due
from server.recruiting.marketplaces.base import MarketplaceError, PostingStatus, ReportedSubmission
from study.trial_plan import read_plan
from tests.scale import count
from tests.server.conftest import Site
from tests.server.recruiting.mturk_study import MTurkWalker, query_of
from tests.server.recruiting.prolific_study import MakeProlific, ProlificStudy, Taken, make_prolific, participant

__all__ = ["make_prolific"]
FORGED = count(15, 1000)
REAL = 3
_ids = (f"{number:024x}" for number in itertools.count(0xF0000))
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def prolific(make_prolific: MakeProlific) -> ProlificStudy:
    """A launch of a server that is no rehearsal, so that one address may begin only a few runs."""
    made = make_prolific(listeners=8, trials=1, limited=True)
    made.launch()
    return made


class AddressClient(Client):
    """A browser without cookies at a network address."""

    def __init__(self, app: Flask, address: str) -> None:
        super().__init__(app, use_cookies=False)
        self._address = address

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, environ_overrides={"REMOTE_ADDR": self._address}, **kwargs)


def offline(prolific: ProlificStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the server's own access to the market away, as without a token; `sync` keeps it."""

    def refuse(opening: str) -> Any:
        raise MarketplaceError("no token")

    monkeypatch.setattr(prolific.site.app.extensions["rootnote"].marketplace_entry.marketplace, "submissions", refuse)


def arrive(prolific: ProlificStudy, worker: str, submission: str, address: str = "203.0.113.9") -> MTurkWalker:
    """Open the study with these ids, from this network address."""
    study = next(iter(prolific.market.state.studies))
    walker = MTurkWalker(prolific.site)
    walker.mturk = prolific
    walker.accepted = Taken(
        submission, f"https://x/take?PROLIFIC_PID={worker}&STUDY_ID={study}&SESSION_ID={submission}"
    )
    walker.client = AddressClient(prolific.site.app, address)
    return walker.arrive()


def real(prolific: ProlificStudy, name: str, address: str = "198.51.100.1") -> MTurkWalker:
    """A participant of Prolific who has taken a place, at the first page."""
    taken = prolific.accept(name)
    assert taken is not None, f"nothing is offered to {name}"
    return arrive(prolific, participant(name), taken.assignment_id, address)


def takes_all(walker: MTurkWalker) -> MTurkWalker:
    walker.agree()
    assert walker.step == "instructions", walker.step
    walker.go("instructions")
    walker.listen().finish()
    assert walker.step == "done"
    return walker


def invents(prolific: ProlificStudy, worker: str) -> str:
    """A forger tries a whole run; returns the page that they ended on."""
    walker = arrive(prolific, worker, next(_ids))
    if walker.step == "consent":
        walker.agree()
    if walker.step == "instructions":
        walker.go("instructions")
        walker.listen().finish()
    return walker.step


def owed(prolific: ProlificStudy) -> int:
    with prolific.context.reading() as session:
        return sum(one.cents for one in all_due(session, prolific.context))


def analysed(prolific: ProlificStudy, folder: Path) -> tuple[set[str], int]:
    """The standings in the export, and how many rows the analysis counts."""
    from analysis.responses.load import read_responses

    site = prolific.site
    with prolific.context.reading() as session:
        wrote = export(session, site.study, read_plan(site.study), folder)
    with wrote.csv.open() as file:
        standings = {row["verification"] for row in csv.DictReader(file)}
    return standings, len(read_responses(wrote.csv).frame)


@pytest.mark.both_databases
@pytest.mark.slow
def test_forged_arrivals_count_nowhere_and_keep_nobody_out(prolific: ProlificStudy, tmp_path: Path) -> None:
    """A forger from one address invents workers, and then submissions of a worker who is really taking part."""
    victim = real(prolific, "PVICTIM").agree()
    address = victim.address
    ends = [invents(prolific, next(_ids)) for _ in range(FORGED)]
    ends += [invents(prolific, participant("PVICTIM")) for _ in range(FORGED)]
    assert {"done", "waiting"} >= set(ends) and ends.count("done") <= 3, "one address has three unconfirmed runs"
    assert victim.reload().step == "instructions", "nobody else is at the victim's address"
    runs = prolific.site.query("SELECT count(*) FROM assignments")[0][0]
    assert runs <= 1 + 3
    for number in range(REAL):
        prolific.market.complete(takes_all(real(prolific, f"P{number}")).accepted.assignment_id, "ANY")
    victim.go("instructions")
    victim.listen().finish()
    assert victim.address == address
    prolific.market.complete(victim.accepted.assignment_id, "ANY")
    prolific.wait(5)
    prolific.sync()
    prolific.wait(5)
    assert prolific.sync().ordered == 0
    assert prolific.paid == prolific.cost == (REAL + 1) * 200
    assert owed(prolific) == 0 and prolific.pay(confirms=False) == []
    assert prolific.site.query("SELECT count(*) FROM places WHERE filled")[0][0] == REAL + 1
    standings, rows = analysed(prolific, tmp_path / "out")
    assert (standings, rows) == ({"confirmed", "unconfirmed"}, REAL + 1)
    held = "SELECT count(*) FROM places WHERE assignment_id IS NOT NULL AND NOT filled"
    assert prolific.site.query(held)[0][0] == 0, "places of runs that Prolific does not list are free again"
    with prolific.context.reading() as session:
        waiting = confirmation.unconfirmed_work(session, prolific.context)
    assert len(waiting) == ends.count("done"), "a person decides about them"
    for one in waiting:
        confirmation.decide(prolific.context, one.pseudonym, "test", "nobody knows them", decline=True)
    prolific.wait(5)
    prolific.sync()
    with prolific.context.reading() as session:
        assert confirmation.unconfirmed_work(session, prolific.context) == []
    assert owed(prolific) == 0


@pytest.mark.both_databases
def test_a_real_listener_takes_the_place_of_an_invented_one(make_prolific: MakeProlific) -> None:
    """Forgers with many addresses hold every place that unconfirmed runs may hold; each real worker still gets one."""
    prolific = make_prolific(listeners=4, trials=1, limited=True)
    prolific.launch()
    forgers = [arrive(prolific, next(_ids), next(_ids), f"192.0.2.{number}").agree() for number in range(6)]
    assert [one.step for one in forgers].count("instructions") == 4
    assert {one.step for one in forgers[4:]} == {"waiting"}
    for number in range(4):
        walker = takes_all(real(prolific, f"P{number}", f"198.51.100.{number}"))
        prolific.market.complete(walker.accepted.assignment_id, "ANY")
    assert prolific.site.query("SELECT count(*) FROM places WHERE filled")[0][0] == 4
    prolific.sync()
    assert prolific.cost == 4 * 200


@on_sqlite
def test_a_listener_whom_nobody_can_look_up_waits_for_sync(
    prolific: ProlificStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(prolific, monkeypatch)
    for _ in range(3):
        assert invents(prolific, next(_ids)) == "done"
    walker = real(prolific, "P1", "203.0.113.9").agree()
    assert walker.step == "waiting"
    assert walker.page is not None and walker.page.headers["Retry-After"] == "60"
    assert "Prolific has not told us yet that you hold a place. Please try again in a minute." in walker.html
    before = dump(prolific.site)
    assert walker.agree().step == "waiting"
    assert dump(prolific.site) == before, "nothing is stored"
    prolific.context.marketplace.disconnect()
    prolific.sync()  # as `sync --watch` does every minute
    assert walker.agree().step == "instructions"
    assert prolific.site.query("SELECT verification FROM assignments ORDER BY id DESC")[0][0] == "confirmed"


@on_sqlite
def test_an_unconfirmed_run_fills_its_place_once_prolific_lists_it(prolific: ProlificStudy, tmp_path: Path) -> None:
    walker = takes_all(real(prolific, "P1"))
    filled = "SELECT count(*) FROM places WHERE filled"
    assert (prolific.site.query("SELECT verification FROM assignments"), prolific.site.query(filled)) == (
        [("unconfirmed",)],
        [(0,)],
    )
    assert owed(prolific) == 0
    prolific.sync()
    assert (prolific.site.query("SELECT verification FROM assignments"), prolific.site.query(filled)) == (
        [("confirmed",)],
        [(1,)],
    )
    prolific.market.complete(walker.accepted.assignment_id, "ANY")
    assert prolific.sync().approved == 1
    assert analysed(prolific, tmp_path / "out") == ({"confirmed"}, 1)


# ------------------------------------------------------------------ one worker, several submissions


@pytest.mark.both_databases
def test_another_submission_of_a_worker_must_prove_itself(
    prolific: ProlificStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = real(prolific, "P1").agree()
    prolific.wait(2)
    prolific.sync()
    before = dump(prolific.site, "vault", "submissions", "listeners")
    forged = arrive(prolific, participant("P1"), next(_ids))
    assert forged.step == "consent", "a page, and not the victim's address"
    assert forged.agree().step == "waiting" and first.address not in forged.html
    assert dump(prolific.site, "vault", "submissions", "listeners") == before
    prolific.market.return_(first.accepted.assignment_id)
    other = prolific.accept("POTHER")
    assert other is not None
    prolific.market.state.submission(other.assignment_id).participant = participant("P1")
    second = arrive(prolific, participant("P1"), other.assignment_id)
    assert second.step == "consent"
    assert second.agree().address == first.address, "Prolific lists it, so their run goes on"
    second.go("instructions")
    second.listen().finish()
    prolific.market.complete(second.accepted.assignment_id, "ANY")
    prolific.wait(5)
    prolific.sync()
    assert prolific.states() == ["paid"]
    assert arrive(prolific, participant("P1"), next(_ids)).step == "taken"


@on_sqlite
def test_who_comes_first_under_a_false_name_locks_nobody_out(prolific: ProlificStudy) -> None:
    forged = arrive(prolific, participant("P1"), next(_ids)).agree()
    assert forged.step == "instructions"
    owner = takes_all(real(prolific, "P1"))
    assert owner.address != forged.address
    prolific.market.complete(owner.accepted.assignment_id, "ANY")
    prolific.wait(5)
    prolific.sync()
    assert prolific.site.query("SELECT verification, state FROM assignments ORDER BY id") == [
        ("unconfirmed", "returned"),
        ("confirmed", "paid"),
    ]


@on_sqlite
def test_a_get_request_writes_nothing(prolific: ProlificStudy) -> None:
    walker = real(prolific, "P1")
    assert walker.step == "consent"
    assert prolific.site.query("SELECT * FROM assignments") == [] == prolific.site.query("SELECT * FROM vault")
    walker.agree()
    prolific.market.return_(walker.accepted.assignment_id)
    prolific.wait(5)
    prolific.sync()
    before = dump(prolific.site, *TABLES)
    for query in (walker.accepted.external_url, walker.accepted.external_url[:-3] + "fff"):
        walker.client.get("/take", query_string=query_of(query))
    walker.client.get(walker.address)
    assert dump(prolific.site, *TABLES) == before


TABLES = ("assignments", "listeners", "places", "submissions", "vault", "responses", "servings", "log")


def dump(site: Site, *tables: str) -> str:
    return "".join(f"{table}: {site.query(f'SELECT * FROM {table}')}" for table in tables or TABLES)


@on_sqlite
def test_the_list_of_another_study_proves_nothing(prolific: ProlificStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an order's id is not known yet, an arrival may name any study of the researcher's, and be listed there."""
    with prolific.context.writing() as session:
        session.add(Posting(token="new", places=1, reward_cents=150, fee_cents=50, ordered_at=prolific.clock()))
    worker, submission, elsewhere = next(_ids), next(_ids), "e" * 24
    asked = []

    def answer(opening: str) -> PostingStatus:
        asked.append(opening)
        return PostingStatus(0, 1, (ReportedSubmission(submission, worker, elsewhere, SubmissionStatus.HELD),))

    marketplace = prolific.site.app.extensions["rootnote"].marketplace_entry.marketplace
    monkeypatch.setattr(marketplace, "submissions", answer)
    for _ in range(3):
        invents(prolific, next(_ids))
    forged = arrive(prolific, worker, submission)
    address = forged.accepted.external_url.replace(query_of(forged.accepted.external_url)["STUDY_ID"], elsewhere)
    forged.accepted = Taken(submission, address)
    assert forged.arrive().agree().step == "waiting"
    assert asked == []
    assert prolific.site.query("SELECT count(*) FROM assignments WHERE verification = 'confirmed'") == [(0,)]


@on_sqlite
def test_a_purge_covers_an_erased_run_that_nobody_listed(prolific: ProlificStudy) -> None:
    """Its address and its submission are hashes of the ids, and the vault has forgotten them already."""
    arrive(prolific, next(_ids), next(_ids)).agree().go("withdraw", confirm="yes")
    derived = "SELECT entry_hash, token_hash, key FROM assignments JOIN submissions ON assignment_id = assignments.id"
    before = prolific.site.query(derived)
    prolific.wait(30)
    prolific.sync()
    site, context = prolific.site, prolific.context
    with context.writing() as session:
        assert delete_erased_identities(session, context.config) == 1
        control = study_control.control(session)
        control.recruiting, control.closed_at = False, prolific.clock()
        session.execute(update(Posting).values(settled_at=prolific.clock()))
    engine = site.app.extensions["rootnote"].engine
    prolific.wait(60 * 24 * (context.config.privacy.identity_days + 1))
    assert retention.purge_automatically(engine, context.config, context.signer, prolific.clock) == 1
    [after] = site.query(derived)
    assert not set(after) & set(before[0])
    assert retention.purge_automatically(engine, context.config, context.signer, prolific.clock) == 0
