"""The researcher's desk over HTTP: signing in, its pages, blinding, and control of the study."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from statsmodels.stats.proportion import proportion_confint

import rootnote
from server.accounts import users
from server.accounts.attempts import ADDRESS_ATTEMPTS, ATTACKED_ATTEMPTS, DEVICE_ATTEMPTS, NAME_ATTEMPTS
from server.db import database
from server.db.models import Assignment, AssignmentState
from server.desk import agreement
from server.payments.hourly_pay import quantile
from study.config import Study
from tests.paper_study import make_study
from tests.scale import count
from tests.server.commands.test_server import command, quick
from tests.server.conftest import SECRET, Site
from tests.server.desk.desk_client import PAGES, PASSWORD, Visit, add_researcher, visible
from tests.server.desk.half_finished import ENDS, fill
from tests.server.small_study import make_study as make_small_study

METRICS = {"metrics_token": "a token for tests, long enough"}
BEARER = {"Authorization": f"Bearer {METRICS['metrics_token']}"}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The paper's study; clips of a hundredth of a second."""
    return make_study(tmp_path_factory.mktemp("desk") / "study", seconds=0.01)


@pytest.fixture
def half_way(paper: Study, make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> Site:
    """The paper's study, half way, with a researcher."""
    monkeypatch.setattr("tests.server.conftest.make_study", lambda folder: paper)
    site = make_site(settings=METRICS)
    fill(site.app.extensions["rootnote"].engine, site.study, site.clock.now)
    add_researcher(site)
    return site


@pytest.fixture
def site(site: Site) -> Site:
    """A small study with a researcher."""
    add_researcher(site)
    return site


# ------------------------------------------------------------------ signing in


def test_signing_in_and_out(site: Site) -> None:
    visit = Visit(site)
    for path in PAGES:
        reply = visit.open(path)
        assert (reply.status_code, reply.location) == (303, "/desk/sign-in")
    assert visit.client.get("/desk", follow_redirects=True).status_code == 200
    assert visit.sign_in(password="wrong password").status_code == 401
    assert visit.sign_in(name="nobody").status_code == 401
    reply = visit.sign_in()
    cookies = {cookie.partition("=")[0]: cookie for cookie in reply.headers.getlist("Set-Cookie")}
    assert all(word in cookies["rootnote-desk"] for word in ("HttpOnly", "SameSite=Strict", "Path=/desk"))
    assert "Secure" not in cookies["rootnote-desk"]
    assert "Overview" in visit.page()
    other = Visit(site).signed_in()
    cookie = visit.client.get_cookie("rootnote-desk", path="/desk")
    assert cookie
    assert visit.send("sign-out", at="").status_code == 303
    visit.client.set_cookie("rootnote-desk", cookie.value, path="/desk")
    assert visit.open().status_code == 303, "the server ended the sign-in, not only the browser"
    assert other.open().status_code == 200
    third = Visit(site).signed_in()
    assert other.send("sign-out-everywhere", at="study").status_code == 303
    assert third.open().status_code == 303
    assert "signed out everywhere" in Visit(site).signed_in().page("log")


def test_the_cookie_is_secure_over_https(site: Site) -> None:
    visit = Visit(site, base_url="https://study.example.org")
    cookie = visit.sign_in().headers["Set-Cookie"]
    assert cookie.startswith("__Secure-rootnote-desk=")
    assert "Secure;" in cookie
    assert visit.open().status_code == 200


def test_a_sign_in_ends_when_idle_and_after_twelve_hours(site: Site) -> None:
    visit = Visit(site).signed_in()
    for _ in range(3):
        site.clock.advance(50)
        assert visit.open().status_code == 200
    site.clock.advance(40)
    assert visit.open(**{"Rootnote-Live": "1"}).status_code == 200  # a page that refreshes itself is no use
    site.clock.advance(30)
    assert visit.open().status_code == 303
    visit.signed_in()
    for _ in range(14):
        site.clock.advance(50)
        visit.open()
    assert visit.open().status_code == 200
    site.clock.advance(30)
    assert visit.open().status_code == 303


def guess_at(visit: Visit, address: str = "127.0.0.1") -> Callable[..., Any]:
    """Guesses from one address; each is the reply."""
    form = visit.form("sign-in")

    def guess(name: str, password: str = "wrong", **more: str) -> Any:
        data = {"form": form, "name": name, "password": password, **more}
        return visit.client.post("/desk/sign-in", data=data, environ_base={"REMOTE_ADDR": address})

    return guess


def test_guessing_is_limited_by_name_and_by_address(site: Site) -> None:
    guess = guess_at(Visit(site))

    assert [guess("anna").status_code for _ in range(NAME_ATTEMPTS)] == [401] * NAME_ATTEMPTS
    refused = guess("anna", PASSWORD)
    assert refused.status_code == 429
    assert "Please wait 15 minutes" in refused.text
    assert 0 < int(refused.headers["Retry-After"]) <= 900
    left = ADDRESS_ATTEMPTS - NAME_ATTEMPTS - 1
    assert [guess(f"name{number}").status_code for number in range(left)] == [401] * left
    assert guess("another").status_code == 429
    site.clock.advance(16)
    assert guess("anna", PASSWORD).status_code == 303
    counts = site.query("SELECT * FROM attempts")
    assert len(counts) == 3, "expired counts are deleted"
    assert "127.0.0.1" not in str(counts)


def test_guessers_at_many_addresses_keep_nobody_out(site: Site) -> None:
    """They have few attempts each, and who comes from an address of their own is let in."""
    for number in range(2):
        guess = guess_at(Visit(site), f"10.0.0.{number}")
        statuses = [guess("anna").status_code for _ in range(NAME_ATTEMPTS)]
        allowed = (NAME_ATTEMPTS, ATTACKED_ATTEMPTS)[number]
        assert statuses == [401] * allowed + [429] * (NAME_ATTEMPTS - allowed)
    assert guess_at(Visit(site), "10.0.0.9")("anna", PASSWORD).status_code == 303


def test_a_known_device_is_let_in_at_the_address_of_the_guessers(site: Site) -> None:
    own = Visit(site, environ_base={"REMOTE_ADDR": "127.0.0.1"}).signed_in()
    assert own.send("sign-out", at="").status_code == 303
    guess = guess_at(Visit(site))
    assert {guess(f"name{number}").status_code for number in range(ADDRESS_ATTEMPTS)} == {401}
    assert [guess("anna").status_code for _ in range(3)] == [429] * 3
    assert own.sign_in().status_code == 303
    # It is known for its user alone, has a limit of its own, and a new password ends it.
    own.send("sign-out", at="")
    assert own.sign_in("ben").status_code == 429
    wrong = [own.sign_in(password="wrong").status_code for _ in range(DEVICE_ATTEMPTS + 1)]
    assert wrong == [401] * DEVICE_ATTEMPTS + [429]
    site.clock.advance(16)
    assert {guess(f"name{number}").status_code for number in range(ADDRESS_ATTEMPTS)} == {401}
    with database.writing(site.app.extensions["rootnote"].engine) as session, session.begin():
        users.change_password(session, "anna", f"{PASSWORD} and more")
    assert own.sign_in(password=f"{PASSWORD} and more").status_code == 429


def test_a_second_factor_is_let_in_at_the_address_of_the_guessers(site: Site) -> None:
    app, recovery = Visit(site).signed_in().enrol()
    site.clock.advance(1)
    guess = guess_at(Visit(site))
    assert {guess("anna").status_code for _ in range(NAME_ATTEMPTS)} == {401}
    refused = guess("anna", PASSWORD)
    assert refused.status_code == 429
    assert 'name="code"' in refused.text
    assert guess("anna", PASSWORD, code="999999").status_code == 429
    assert guess("anna", "wrong", code=app.at(site.clock.now)).status_code == 401
    assert guess("anna", PASSWORD, code=app.at(site.clock.now)).status_code == 303
    guess = guess_at(Visit(site))
    assert guess("anna", PASSWORD, code=app.at(site.clock.now)).status_code == 429, "a code works once"
    # Guessed codes are limited too, except those that nobody can guess.
    assert {guess("anna", PASSWORD, code=f"99999{number}").status_code for number in range(10)} == {429}
    site.clock.advance(1)
    assert guess("anna", PASSWORD, code=app.at(site.clock.now)).status_code == 429
    assert guess("anna", PASSWORD, code=recovery[3]).status_code == 303


@pytest.mark.both_databases
def test_guessing_at_once_gains_nothing(site: Site) -> None:
    form_of = {visit: visit.form("sign-in") for visit in (Visit(site) for _ in range(16))}
    statuses: list[int] = []

    def guess(visit: Visit) -> None:
        data = {"form": form_of[visit], "name": "anna", "password": "wrong"}
        statuses.append(visit.client.post("/desk/sign-in", data=data).status_code)

    threads = [threading.Thread(target=guess, args=(visit,)) for visit in form_of]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [401] * NAME_ATTEMPTS + [429] * 6


def test_an_unknown_name_costs_the_same_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = []
    real = users._hasher.verify
    monkeypatch.setattr(type(users._hasher), "verify", lambda self, *given: verified.append(given) or real(*given))
    visit = Visit(site)
    replies = [visit.sign_in("anna", "wrong"), visit.sign_in("nobody", "wrong")]
    assert len(verified) == 2
    assert len({password_hash.split("$")[3] for password_hash, _ in verified}) == 1, "memory, passes and threads"
    assert visible(replies[0].text).replace("anna", "") == visible(replies[1].text).replace("nobody", "")


def test_forms_of_other_sites_are_refused(site: Site) -> None:
    visit = Visit(site).signed_in()
    other = Visit(site).signed_in()
    for path in ("study/stop", "study/close", "study/message", "agreement", "sign-out", "sign-out-everywhere"):
        for data in ({}, {"form": "x"}, {"form": "é"}, {"form": other.form("study")}):
            fields = {"reason": "a long enough reason", "confirm": "yes", "message": "hello", **data}
            assert visit.client.post(f"/desk/{path}", data=fields).status_code == 400
        own = {"reason": "a long enough reason", "confirm": "yes", "message": "hello", "form": visit.form("study")}
        neighbour = {"Sec-Fetch-Site": "same-site"}
        assert visit.client.post(f"/desk/{path}", data=own, headers=neighbour).status_code == 400
        assert visit.client.get(f"/desk/{path}").status_code in (200, 405)
    assert Visit(site).client.post("/desk/sign-in", data={"name": "anna", "password": PASSWORD}).status_code == 400
    assert site.query("SELECT recruiting, closed_at FROM control")[0] in [(True, None), (1, None)]


DAMAGED = ["\0", "' OR 1=1 --", "<script>", "é" * 600, "9" * 40, "\ud800"]
HOSTILE = st.one_of(st.text(max_size=60), st.sampled_from(DAMAGED))
FORMS = ("study/stop", "study/resume", "study/message", "study/close", "agreement")


def test_damaged_forms_and_addresses_break_nothing(site: Site) -> None:
    """Whatever is sent, the desk answers below 500 and the study is not closed."""
    visit = Visit(site).signed_in()
    form = visit.form("study")

    @settings(max_examples=count(20, soak=600), deadline=None, database=None)
    @given(st.sampled_from(["listeners", "log", "triplets", ""]), HOSTILE, HOSTILE)
    def open_pages(path: str, name: str, value: str) -> None:
        query = {"page": name, "state": value} if name else {"page": value}
        assert visit.client.get(f"/desk/{path}", query_string=encoded(query)).status_code < 500
        assert visit.client.get("/desk/listeners/" + quote(name, errors="replace")).status_code < 500

    @settings(max_examples=count(20, soak=600), deadline=None, database=None)
    @given(st.sampled_from(FORMS), HOSTILE, HOSTILE)
    def send(path: str, reason: str, text: str) -> None:
        fields = encoded({"reason": reason, "message": text, "confirm": text, "form": form, "name": reason})
        assert visit.client.post(f"/desk/{path}", data=fields).status_code < 500

    open_pages()
    send()
    stranger = Visit(site)
    form = stranger.form("sign-in")
    for name in DAMAGED[:4]:
        fields = encoded({"form": form, "name": name, "password": name})
        assert stranger.client.post("/desk/sign-in", data=fields).status_code == 401
    assert site.walker().open().step in ("consent", "full")
    assert visit.open("log").status_code == 200


def encoded(fields: dict[str, str]) -> dict[str, bytes | str]:
    """Fields as a client of any kind may send them, lone surrogates included."""
    return {name: value.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for name, value in fields.items()}


# ------------------------------------------------------------------ pages


@pytest.mark.both_databases
def test_the_overview_counts_what_is_there(half_way: Site) -> None:
    page = re.sub(r"<[^>]+>", " ", visible(Visit(half_way).signed_in().page()))
    words = re.sub(r"\s+", " ", page)
    consented = sum(ENDS.values())
    finished = next(iter(ENDS.values()))
    assert f"Arrived 131 – Consented {consented} 63 %" in words
    assert f"Finished {finished} 81 %" in words
    assert "Failed the prescreen 7 8 %" in words
    assert "Turned away 9 7 %" in words
    assert "Places filled 60 of 90" in words
    assert "600 of 900" in words
    with Session(half_way.app.extensions["rootnote"].engine) as session:
        ended = list(session.scalars(select(Assignment).where(Assignment.state == AssignmentState.FINISHED)))
    minutes = [(one.ended_at - one.consented_at).total_seconds() / 60 for one in ended if one.ended_at]
    low, median, high = np.quantile(minutes, [0.1, 0.5, 0.9])
    for value in (low, median, high):
        assert f"{round(60 * value) // 60} min {round(60 * value) % 60:02d} s" in words
    hourly = [1.5 / (one / 60) for one in minutes]
    assert f"${np.median(hourly):.2f} an hour" in words
    assert f"90 % earn ${np.quantile(hourly, 0.1):.2f} or more" in words
    [(counted,)] = half_way.query(
        "SELECT count(*) FROM responses JOIN assignments a ON a.id = assignment_id WHERE state = 'finished'"
    )
    assert sum(int(n) for n in re.findall(r"[123]–[234] (\d+) \d+ 150", words)) == counted == 600


@pytest.mark.both_databases
def test_listeners_by_state_and_page(half_way: Site) -> None:
    visit = Visit(half_way).signed_in()
    pages = [visit.page(f"listeners?page={number}") for number in (1, 2, 3, 4, 99)]
    found = [name for page in pages[:4] for name in re.findall(r'/desk/listeners/(\w{16})"', page)]
    assert len(found) == len(set(found)) == sum(ENDS.values())
    assert visible(pages[3]) == visible(pages[4])
    for state, number in ENDS.items():
        shown = visit.page(f"listeners?state={state.value}")
        assert re.search(rf"{number} listeners?\b", shown)
    [(pseudonym,)] = half_way.query(
        "SELECT l.pseudonym FROM listeners l JOIN assignments a ON listener_id = l.id WHERE state = 'finished' LIMIT 1"
    )
    page = visit.page(f"listeners/{pseudonym}")
    assert len(re.findall(r"<td>scored</td>", page)) == 10
    assert "4 to 10" in page
    assert "firefox-desktop" in page
    codes = {row[0] for row in half_way.query("SELECT completion_code FROM assignments")}
    assert not codes & set(re.findall(r"\w+", page))
    for path in (
        "listeners/none",
        "listeners?state=none",
        "listeners?page=0",
        "listeners?page=x",
        "log?page=-1",
        "listeners/%00",
    ):
        assert visit.open(path).status_code == 404
    assert "Traceback" not in visit.open("listeners/none").text


def test_nothing_reveals_agreement_before_the_end(half_way: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every choice is turned round: not one byte of the desk or of /metrics may change until the study is closed."""
    real, computed = agreement.agreement, []
    monkeypatch.setattr(agreement, "agreement", lambda *given: computed.append(given) or real(*given))
    visit, pseudonyms = (
        Visit(half_way).signed_in(),
        [row[0] for row in half_way.query("SELECT pseudonym FROM listeners")],
    )
    paths = [*PAGES, "listeners?page=2", "listeners?page=3", *(f"listeners/{name}" for name in pseudonyms[:12])]

    def open_pages() -> list[str]:
        pages = [visible(visit.page(path)) for path in paths]
        live = [visible(visit.open(path, **{"Rootnote-Live": "1"}).text) for path in PAGES]
        return [*pages, *live, visit.client.get("/metrics", headers=BEARER).text]

    before = open_pages()
    flip = "UPDATE responses SET choice = CASE choice WHEN 'A' THEN 'B' ELSE 'A' END"
    with half_way.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text(flip))
    assert open_pages() == before
    assert not computed
    assert visit.send("study/close", reason="all places are filled", confirm="yes").status_code == 303
    turned = visit.page("agreement")
    with half_way.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text(flip))
    right = visit.page("agreement")
    rates = [
        [
            (int(agreed), int(n))
            for agreed, n in re.findall(r'<td class="n">(\d+)</td><td class="n">(\d+)</td><td class="n">\d+\.', page)
        ]
        for page in (turned, right)
    ]
    assert len(rates[0]) == 6
    assert [(n - agreed, n) for agreed, n in rates[0]] == rates[1]
    assert sum(n for _, n in rates[1]) == 600
    assert 0.7 < sum(agreed for agreed, _ in rates[1]) / 600 < 0.8


def test_unblinding_early_asks_for_a_reason_and_is_logged(half_way: Site) -> None:
    add_researcher(half_way, "ben")
    visit, other = Visit(half_way).signed_in(), Visit(half_way).signed_in("ben")
    for reason in ("", "because"):
        refused = visit.send("agreement", reason=reason)
        assert refused.status_code == 400
        assert "reason of at least" in refused.text
    assert "Agreed" not in visit.page("agreement")
    assert visit.send("agreement", reason="Two listeners report silent clips <b>").status_code == 303
    assert "Agreed" in visit.page("agreement")
    assert "Agreed" not in other.page("agreement")
    log = other.page("log")
    assert "asked to see agreement" in log
    assert "Two listeners report silent clips &lt;b&gt;" in log


@pytest.mark.both_databases
def test_the_log_is_append_only(site: Site) -> None:
    visit = Visit(site).signed_in()
    engine = site.app.extensions["rootnote"].engine
    for change in ("UPDATE log SET reason = 'another'", "DELETE FROM log"):
        with pytest.raises(DBAPIError, match="only added to"), engine.begin() as connection:
            connection.execute(text(change))
    assert "signed in" in visit.page("log")


# ------------------------------------------------------------------ control of the study


def test_stopping_resuming_and_the_message(half_way: Site) -> None:
    visit, listener = Visit(half_way).signed_in(), half_way.walker().consent()
    waiting = half_way.walker().open()
    assert "22:00 UTC" in waiting.html
    assert visit.send("study/stop", reason="").status_code == 303
    assert half_way.walker().open().step == "full"
    assert waiting.agree().step == "full"
    assert listener.reload().step == "prescreen", "who is in goes on"
    assert visit.send("study/resume", reason="fixed").status_code == 303
    assert visit.send("study/message", message="<i>Quiet</i> rooms, please").status_code == 303
    page = half_way.walker().open()
    assert page.step == "consent"
    assert "&lt;i&gt;Quiet&lt;/i&gt; rooms, please" in page.html
    refused = visit.send("study/message", message="x" * 501)
    assert refused.status_code == 400
    assert "501 characters" in refused.text
    log = visible(visit.page("log"))
    for words in ("stopped recruiting", "resumed recruiting", "fixed", "set the message"):
        assert words in log
    assert "<i>Quiet" not in visit.page("log")


def test_closing_is_permanent(site: Site) -> None:
    visit, listener = Visit(site).signed_in(), site.walker().consent()
    assert visit.send("study/close", reason="all places are filled").status_code == 400
    assert visit.send("study/close", reason="short", confirm="yes").status_code == 400
    assert site.walker().open().step == "consent"
    form = visit.form("study")
    assert visit.send("study/close", reason="all places are filled", confirm="yes").status_code == 303
    assert "It has ended" in site.walker().open().html
    assert listener.reload().step == "prescreen"
    for path in ("resume", "close", "message"):
        fields = {"form": form, "reason": "to look once more", "confirm": "yes", "message": "open"}
        reply = visit.client.post(f"/desk/study/{path}", data=fields)
        assert reply.status_code == 400
        assert "The study is closed" in reply.text
    assert "It has ended" in site.walker().open().html


def test_arrivals_are_counted_anonymously(site: Site) -> None:
    client = site.walker().client
    client.get("/take?worker=A1")
    client.get("/take")
    client.head("/take")
    client.get("/take", headers={"Sec-Purpose": "prefetch"})
    assert site.query("SELECT sum(number) FROM arrivals") == [(2,)]


# ------------------------------------------------------------------ arithmetic


@given(st.integers(1, 400), st.data())
def test_wilson_against_statsmodels(n: int, data: st.DataObject) -> None:
    agreed = data.draw(st.integers(0, n))
    assert agreement.wilson_interval(agreed, n) == pytest.approx(
        proportion_confint(agreed, n, method="wilson"), abs=1e-12
    )


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_against_numpy(values: list[float], q: float) -> None:
    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-9)


def test_invalid_counts_have_no_interval() -> None:
    for agreed, n in ((0, 0), (2, 1), (-1, 3)):
        with pytest.raises(ValueError, match="not a rate"):
            agreement.wilson_interval(agreed, n)


# ------------------------------------------------------------------ the command line


def test_users_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    study = make_small_study(tmp_path / "study", listeners=1, trials=1)
    assert quick("server", "migrate", study.folder).exit_code == 0
    password = {"ROOTNOTE_DESK_PASSWORD": "a password of some length"}
    status, output = command("server", "user", "add", "anna", study.folder, **password)
    assert status == 0
    assert "'anna'" in output
    for name, given_password, words in (
        ("anna", password["ROOTNOTE_DESK_PASSWORD"], "already exists"),
        ("Anna B", password["ROOTNOTE_DESK_PASSWORD"], "lower-case letters"),
        ("ben", "short", "12 to 1024 characters"),
    ):
        refused = quick_with(given_password, "server", "user", "add", name, study.folder)
        assert refused.exit_code == 1
        assert words in str(refused.exception)
    assert quick("server", "user", "list", study.folder).output == "anna  owner  password only\n"
    assert quick_with("another password of mine", "server", "user", "passwd", "anna", study.folder).exit_code == 0
    assert quick("server", "user", "remove", "anna", study.folder).exit_code == 0
    listed = quick("server", "user", "list", study.folder).output
    assert listed == "There are no users yet; add one with `rootnote server user add NAME`.\n"
    assert "no user 'anna'" in str(quick("server", "user", "remove", "anna", study.folder).exception)


def quick_with(password: str, *arguments: Any) -> Any:
    return CliRunner(env={"ROOTNOTE_DESK_PASSWORD": password}).invoke(rootnote.cli, [str(part) for part in arguments])
