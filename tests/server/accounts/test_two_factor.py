"""The second factor at the desk: setting up, signing in, use of a code, recovery, requirement."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable
from html import unescape

import pyotp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from server.accounts import two_factor
from server.accounts.attempts import CODE_ATTEMPTS
from tests.scale import count
from tests.server.conftest import SECRET, Site
from tests.server.desk.desk_client import ON_SQLITE, PASSWORD, Visit, add_researcher, sealed
from tests.server.desk.test_desk import DAMAGED, encoded


@pytest.fixture
def site(site: Site) -> Site:
    """A small study with an owner, anna."""
    add_researcher(site)
    return site


def logged(site: Site) -> list[tuple[str, str, str]]:
    return [tuple(row) for row in site.query("SELECT who, what, detail FROM log ORDER BY id")]  # type: ignore[misc]


def test_setting_it_up_and_signing_in(site: Site) -> None:
    visit, other = Visit(site).signed_in(), Visit(site).signed_in()
    assert visit.send("account/factor", at="account", password="not it").status_code == 401
    offer = visit.send("account/factor", at="account", password=PASSWORD)
    key = re.findall(r"data-key>([A-Z2-7 ]+)<", offer.text)[0]
    assert len(key.replace(" ", "")) == 32, "160 bits"
    svg = unescape(re.findall(r"<svg.*?</svg>", offer.text, re.DOTALL)[0])
    assert "style" not in svg
    assert re.findall(r'(?:href|src)="(?!/desk|/static|#|")', offer.text) == [], "the picture is of the page itself"
    wrong = visit.send("account/factor/confirm", at="account", sealed=sealed(offer.text), code="000000")
    assert wrong.status_code == 400
    assert key in wrong.text, "the same key is offered again"
    assert site.query("SELECT factor FROM researchers") == [(None,)], "nothing is stored before a code has come back"
    app, recovery = visit.enrol()
    assert visit.open().status_code == 200
    assert other.open().status_code == 303, "other browsers are signed out"
    assert len(set(recovery)) == two_factor.RECOVERY_CODES
    site.clock.advance(1)
    asked = other.sign_in()
    assert (asked.status_code, "authenticator app" in asked.text) == (200, True)
    assert other.open().status_code == 303, "the password alone opens nothing"
    assert Visit(site).send_code("000000").status_code == 401
    assert other.send_code(app.at(site.clock.now)).status_code == 303
    assert "anna" in other.page()
    assert logged(site)[-2:] == [("anna", "failed to sign in", "wrong code"), ("anna", "signed in", "")]


@ON_SQLITE
def test_codes_are_accepted_as_typed_and_with_clock_drift(site: Site) -> None:
    app, recovery = Visit(site).signed_in().enrol()
    site.clock.advance(2)
    for minutes, status in ((-1.0, 401), (1.0, 401), (-0.5, 303)):
        code = app.at(int(site.clock.now.timestamp() + 60 * minutes))
        assert Visit(site).send_code(f" {code[:3]} {code[3:]} ").status_code == status
    assert Visit(site).send_code(recovery[0].lower().replace("-", " ")).status_code == 303


@pytest.mark.both_databases
@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_a_code_works_once_however_many_come_at_once(site: Site, kind: str) -> None:
    app, recovery = Visit(site).signed_in().enrol()
    site.clock.advance(1)
    code = app.at(site.clock.now) if kind == "app" else recovery[3]
    visits = [Visit(site) for _ in range(6)]
    fields = []
    for visit in visits:
        page = visit.sign_in().text
        fields.append({"form": visit.form("sign-in"), "sealed": sealed(page), "code": code})
    statuses: list[int] = []
    start = threading.Barrier(len(visits))

    def send(visit: Visit, form: dict[str, str]) -> None:
        start.wait()
        statuses.append(visit.client.post("/desk/sign-in/code", data=form).status_code)

    threads = [threading.Thread(target=send, args=pair) for pair in zip(visits, fields, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [303] + [401] * 5
    assert Visit(site).send_code(code).status_code == 401
    earlier = app.at(int(site.clock.now.timestamp()) - 30)
    assert kind == "recovery" or Visit(site).send_code(earlier).status_code == 401, "nor an earlier one after it"


def test_recovery_codes_are_long_hashed_and_renewed(site: Site) -> None:
    visit = Visit(site).signed_in()
    _, old = visit.enrol()
    assert {len(base64.b32decode(code.replace("-", ""))) * 8 for code in old} == {120}
    stored = site.query("SELECT recovery, factor FROM researchers")[0]
    assert not [code for code in old if code in stored[0] or code.replace("-", "") in stored[0]]
    assert Visit(site).send_code(old[0]).status_code == 303
    assert logged(site)[-1] == ("anna", "signed in", "by a recovery code, 9 left")
    assert "9 unused recovery codes" in visit.page("account")
    page = visit.send("account/factor/recovery", at="account", password=PASSWORD).text
    new = re.findall(r"<li>([A-Z2-7-]{29})</li>", page)
    assert len(new) == 10
    assert new[0] not in visit.page("account"), "they are shown once"
    assert Visit(site).send_code(old[1]).status_code == 401
    assert Visit(site).send_code(new[0]).status_code == 303


@ON_SQLITE
def test_the_key_is_encrypted_and_bound_to_its_user(site: Site) -> None:
    visit = Visit(site).signed_in()
    app, _ = visit.enrol()
    [(stored,)] = site.query("SELECT factor FROM researchers")
    assert app.secret not in stored
    assert two_factor.KeyCipher(SECRET, "factor").open(stored) == {"who": 1, "key": app.secret}
    for secret, purpose in ((SECRET[::-1], "factor"), (SECRET, "enrolment")):
        assert two_factor.KeyCipher(secret, purpose).open(stored) is None
    # Whoever may write to the database puts their own key into another's row: it opens nothing.
    add_researcher(site, "ben")
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE researchers SET factor = :factor WHERE name = 'ben'"), {"factor": stored})
    site.clock.advance(1)
    assert Visit(site).send_code(app.at(site.clock.now), "ben").status_code == 401


def test_wrong_codes_are_limited_and_recovery_codes_are_not(site: Site) -> None:
    known = Visit(site).signed_in()
    app, recovery = known.enrol()
    site.clock.advance(1)
    visit = Visit(site)
    for _ in range(2):
        assert visit.sign_in(password="wrong").status_code == 401
    fields = {"sealed": sealed(visit.sign_in().text), "form": visit.form("sign-in")}

    def guess(code: str) -> int:
        return visit.client.post("/desk/sign-in/code", data={**fields, "code": code}).status_code

    statuses = [guess("999999") for _ in range(CODE_ATTEMPTS)]
    assert statuses == [401] * CODE_ATTEMPTS
    assert guess(app.at(site.clock.now)) == 429, "the right one too"
    whats = [what for _, what, _ in logged(site)]
    assert whats.count("failed to sign in") == CODE_ATTEMPTS + 2
    assert whats.count("was locked out") == 1
    assert guess(recovery[0]) == 303, "nobody can guess a recovery code"
    assert known.send_code(app.at(site.clock.now)).status_code == 303, "and others' guesses do not count on this device"
    site.clock.advance(16)
    assert Visit(site).send_code(app.at(site.clock.now)).status_code == 303


@ON_SQLITE
def test_the_second_step_needs_the_same_browser_and_expires(site: Site) -> None:
    app, _ = Visit(site).signed_in().enrol()
    site.clock.advance(1)
    visit, other = Visit(site), Visit(site)
    page = visit.sign_in().text
    for sender, token in ((other, sealed(page)), (visit, "x"), (visit, "é"), (visit, sealed(page)[:-4] + "AAA=")):
        reply = sender.send("sign-in/code", at="sign-in", sealed=token, code=app.at(site.clock.now))
        assert reply.status_code == 401
        assert "start again with your password" in reply.text
    site.clock.advance(6)
    late = visit.send("sign-in/code", at="sign-in", sealed=sealed(page), code=app.at(site.clock.now))
    assert "start again with your password" in late.text
    # A password that was changed in between does not count any more.
    page = visit.sign_in().text
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.execute(text("UPDATE researchers SET password_hash = 'another'"))
    changed = visit.send("sign-in/code", at="sign-in", sealed=sealed(page), code=app.at(site.clock.now))
    assert changed.status_code == 401


@ON_SQLITE
def test_a_required_second_factor_comes_before_everything_else(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"factor_required": True})
    add_researcher(site)
    visit = Visit(site).signed_in()
    rules = [rule for rule in site.app.url_map.iter_rules() if rule.rule.startswith("/desk") and not rule.alias]
    for rule in rules:
        path = re.sub(r"<[^>]+>", "anna", rule.rule)
        if "sign-in" in path or path.startswith("/desk/account"):
            continue
        if "GET" in (rule.methods or ()):
            assert visit.client.get(path).location.endswith("/desk/account"), path
        elif "sign-out" not in path:
            fields = {"form": visit.form("account"), "password": PASSWORD}
            assert visit.client.post(path, data=fields).status_code == 403, path
    assert "requires a second factor" in visit.page("account")
    assert "Listeners" not in visit.page("account")
    assert visit.send("account/factor/drop", at="account", password=PASSWORD).status_code == 403
    app, _ = visit.enrol()
    assert "Overview" in visit.page()
    site.clock.advance(1)
    assert Visit(site).send_code(app.at(site.clock.now)).status_code == 303
    assert visit.send("account/factor/drop", at="account", password=PASSWORD).status_code == 303
    assert visit.open().location.endswith("/desk/account")


@ON_SQLITE
def test_an_offer_expires_and_belongs_to_one_user(site: Site) -> None:
    add_researcher(site, "ben")
    visit, other = Visit(site).signed_in(), Visit(site).signed_in("ben")
    page = visit.send("account/factor", at="account", password=PASSWORD).text
    app = pyotp.TOTP(re.findall(r"data-key>([A-Z2-7 ]+)<", page)[0].replace(" ", ""))
    for sender, minutes in ((other, 0), (visit, 16)):
        site.clock.advance(minutes)
        code = app.at(site.clock.now)
        refused = sender.send("account/factor/confirm", at="account", sealed=sealed(page), code=code)
        assert refused.status_code == 400
        assert "start again" in refused.text
    assert site.query("SELECT count(*) FROM researchers WHERE factor IS NOT NULL") == [(0,)]
    visit.enrol()
    # Set up already: a second offer changes nothing.
    again = visit.send("account/factor", at="account", password=PASSWORD)
    assert again.status_code == 303


@ON_SQLITE
def test_turning_it_off_asks_for_the_password(site: Site) -> None:
    visit = Visit(site).signed_in()
    visit.enrol()
    assert visit.send("account/factor/drop", at="account", password="not it").status_code == 401
    assert visit.send("account/factor/drop", at="account", password=PASSWORD).status_code == 303
    assert site.query("SELECT factor, factor_step, recovery FROM researchers") == [(None, None, None)]
    assert visit.open().status_code == 200
    Visit(site).signed_in()
    whats = [what for _, what, _ in logged(site)]
    assert "turned off their second factor" in whats


HOSTILE = st.one_of(st.text(max_size=80), st.sampled_from([*DAMAGED, "123456", "0" * 2000]))


@ON_SQLITE
def test_damaged_codes_break_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.accounts.attempts.CODE_ATTEMPTS", 10_000)
    monkeypatch.setattr("server.accounts.attempts.ADDRESS_ATTEMPTS", 10_000)
    Visit(site).signed_in().enrol()
    visit = Visit(site)
    fields = {"sealed": sealed(visit.sign_in().text), "form": visit.form("sign-in")}

    @settings(max_examples=count(16, soak=400), deadline=None, database=None)
    @given(HOSTILE, HOSTILE, st.booleans())
    def send(code: str, token: str, own: bool) -> None:
        sent = encoded({**fields, "code": code} | ({} if own else {"sealed": token}))
        assert visit.client.post("/desk/sign-in/code", data=sent).status_code == 401

    send()
