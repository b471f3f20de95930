"""Roles at the desk: every page and form for every role, what a monitor cannot see, and changes of other users."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.accounts import roles, users
from server.accounts.roles import Role
from server.db import database
from tests.server.accounts.test_two_factor import logged
from tests.server.commands.test_server import quick
from tests.server.conftest import SECRET, Site
from tests.server.desk.desk_client import ON_SQLITE, PASSWORD, Visit, add_researcher, sealed
from tests.server.desk.test_desk import quick_with
from tests.server.small_study import make_study

MONITORS = {
    "GET /desk/", "GET /desk/triplets", "GET /desk/agreement", "GET /desk/account", "POST /desk/account/factor",
    "POST /desk/account/factor/confirm", "POST /desk/account/factor/recovery", "POST /desk/account/factor/drop",
    "POST /desk/sign-out", "POST /desk/sign-out-everywhere",
}  # fmt: skip
RESEARCHERS = {
    "GET /desk/listeners", "GET /desk/listeners/<pseudonym>", "GET /desk/questions", "GET /desk/study",
    "GET /desk/quality",
    "GET /desk/log", "POST /desk/agreement", "POST /desk/study/stop", "POST /desk/study/resume",
    "POST /desk/study/message", "POST /desk/study/close",
}  # fmt: skip
OWNERS = {
    "GET /desk/users", "GET /desk/users/<name>", "POST /desk/users/<name>/role",
    "POST /desk/users/<name>/factor", "POST /desk/users/<name>/remove",
}  # fmt: skip
SIGNED_OUT = {"GET /desk/sign-in", "POST /desk/sign-in", "POST /desk/sign-in/code"}
OPEN_TO = {
    "monitor": MONITORS,
    "researcher": MONITORS | RESEARCHERS,
    "owner": MONITORS | RESEARCHERS | OWNERS,
}


@pytest.fixture
def site(site: Site) -> Site:
    """A small study with an owner, a researcher and a monitor, whose names say so."""
    for role in (Role.OWNER, Role.RESEARCHER, Role.MONITOR):
        add_researcher(site, role.value, role)
    return site


def routes(site: Site) -> dict[str, str]:
    """Every page and form of the desk: "METHOD /rule" -> endpoint."""
    return {
        f"{method} {rule.rule}": rule.endpoint
        for rule in site.app.url_map.iter_rules()
        if rule.rule.startswith("/desk") and not rule.alias
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}
    }


def address(site: Site, rule: str) -> str:
    pseudonym = site.query("SELECT pseudonym FROM listeners")[0][0]
    return rule.replace("<pseudonym>", pseudonym).replace("<name>", "monitor")


@ON_SQLITE
def test_every_route_is_in_the_table(site: Site) -> None:
    found = routes(site)
    assert set(found) == SIGNED_OUT | OPEN_TO["owner"]
    assert set(found.values()) == set(roles.ACCESS)


def test_every_page_and_form_for_every_role(site: Site) -> None:
    site.walker().take_part()
    paths = {route: address(site, route.partition(" ")[2]) for route in routes(site)}
    ends = {"POST /desk/sign-out", "POST /desk/sign-out-everywhere"}
    for role, opened in OPEN_TO.items():
        visit = Visit(site).signed_in(role)
        form = visit.form("account")
        # What changes something first asks for what is not sent here: a password, a reason, a tick.
        for route in sorted(set(paths) - SIGNED_OUT - ends, key=lambda route: (route in opened, route)):
            method, _, _ = route.partition(" ")
            data = {"form": form} if method == "POST" else None
            reply = visit.client.open(paths[route], method=method, data=data)
            assert (reply.status_code != 403) == (route in opened), (role, route)
            assert reply.status_code < 500
            if method == "GET" and route in opened:
                assert reply.status_code == 200
        tabs = set(re.findall(r'href="(/desk/\w*/?)"', visit.page("account").partition("</nav>")[0]))
        assert {f"GET {tab}" for tab in tabs} == {route for route in opened if re.fullmatch(r"GET /desk/\w*/?", route)}
        assert visit.client.post("/desk/sign-out", data={"form": form}).status_code == 303
    stranger = Visit(site).client
    for route in set(paths) - SIGNED_OUT:
        method, _, _ = route.partition(" ")
        reply = stranger.open(paths[route], method=method)
        assert (reply.status_code, reply.location) == (303, "/desk/sign-in")


@ON_SQLITE
def test_old_addresses_of_users_are_redirected(site: Site) -> None:
    visit = Visit(site).signed_in("owner")
    for old, new in (("people", "users"), ("people/monitor", "users/monitor")):
        reply = visit.open(old)
        assert (reply.status_code, urlsplit(reply.location).path) == (308, f"/desk/{new}")
        assert visit.open(new).status_code == 200


@ON_SQLITE
def test_an_endpoint_missing_from_the_table_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = Visit(site).signed_in("owner")
    monkeypatch.delitem(roles.ACCESS, "desk.log")
    assert visit.open("log").status_code == 403
    assert Visit(site).open("log").location == "/desk/sign-in"


def test_an_unknown_role_opens_nothing() -> None:
    for role in ("", "Owner", "administrator"):
        assert not [endpoint for endpoint in roles.ACCESS if roles.is_allowed(role, endpoint)]


# ------------------------------------------------------------------ a monitor


def test_a_monitor_sees_progress_but_no_individual(site: Site) -> None:
    site.walker().take_part()
    [(pseudonym, code)] = site.query(
        "SELECT l.pseudonym, a.completion_code FROM assignments a JOIN listeners l ON l.id = a.listener_id"
    )
    visit = Visit(site).signed_in("monitor")
    pages = "".join(visit.page(path) for path in ("", "triplets", "agreement", "account"))
    assert "Places filled" in pages
    assert "Effective wage" in pages
    for hidden in (pseudonym, code, "Headphones or earbuds", "All well", "Agreed", "Show me agreement"):
        assert hidden not in pages
    assert Visit(site).signed_in("researcher").send("agreement", reason="something is broken").status_code == 303
    assert "Agreed" not in visit.page("agreement")
    researcher = Visit(site).signed_in("researcher")
    assert researcher.send("study/close", reason="all are through", confirm="yes").status_code == 303
    assert "Agreed" in visit.page("agreement")
    assert pseudonym not in visit.page("agreement")


@ON_SQLITE
def test_a_new_monitor_is_blind_again_at_once(site: Site) -> None:
    site.walker().take_part()
    visit, owner = Visit(site).signed_in("researcher"), Visit(site).signed_in("owner")
    assert visit.send("agreement", reason="something is broken").status_code == 303
    assert "Agreed" in visit.page("agreement")
    change = {"role": "monitor", "password": PASSWORD}
    assert owner.send("users/researcher/role", at="users/researcher", **change).status_code == 303
    assert "Agreed" not in visit.page("agreement")
    assert visit.open("listeners").status_code == 403
    change["role"] = "researcher"
    assert owner.send("users/researcher/role", at="users/researcher", **change).status_code == 303
    assert "Agreed" not in visit.page("agreement"), "they have to ask again"


# ------------------------------------------------------------------ users


def test_an_owner_changes_others_and_not_themselves(site: Site) -> None:
    owner, monitor = Visit(site).signed_in("owner"), Visit(site).signed_in("monitor")
    monitor.enrol()
    page = owner.page("users")
    assert re.search(r"monitor</a></th><td>monitor</td><td>on</td>", page)
    assert "never" in page, "the researcher has not signed in yet"
    for path, fields in (
        ("users/monitor/role", {"role": "owner"}),
        ("users/monitor/factor", {}),
        ("users/monitor/remove", {}),
    ):
        wrong = owner.send(path, at="users/monitor", password="not it", **fields)
        assert (wrong.status_code, "not your password" in wrong.text) == (401, True)
        own = path.replace("monitor", "owner")
        itself = owner.send(own, at="users/monitor", password=PASSWORD, **fields)
        assert (itself.status_code, "cannot change your own account" in itself.text) == (400, True)
        unknown = owner.send(path.replace("monitor", "nobody"), at="users/monitor", password=PASSWORD, **fields)
        assert unknown.status_code == 404
    assert owner.send("users/monitor/role", at="users/monitor", role="king", password=PASSWORD).status_code == 400
    assert owner.send("users/monitor/factor", at="users/monitor", password=PASSWORD).status_code == 303
    assert monitor.open().status_code == 303
    monitor.signed_in("monitor")
    assert owner.send("users/monitor/remove", at="users/monitor", password=PASSWORD).status_code == 303
    assert monitor.open().status_code == 303
    assert monitor.sign_in("monitor").status_code == 401
    assert owner.open("users/monitor").status_code == 404
    changes = {entry for entry in logged(site) if entry[0] == "owner"}
    assert {("owner", "reset the second factor of", "monitor"), ("owner", "removed the user", "monitor")} <= changes


@pytest.mark.both_databases
def test_owners_who_remove_each_other_at_once_leave_one(site: Site) -> None:
    add_researcher(site, "other", Role.OWNER)
    pairs = [("owner", "other"), ("other", "owner")]
    visits = {name: Visit(site).signed_in(name) for name, _ in pairs}
    forms = {name: visits[name].form("users") for name, _ in pairs}
    start = threading.Barrier(2)

    def remove(name: str, other: str, change: str) -> None:
        start.wait()
        fields = {"form": forms[name], "password": PASSWORD, "role": "monitor"}
        visits[name].client.post(f"/desk/users/{other}/{change}", data=fields)

    threads = [
        threading.Thread(target=remove, args=(*pair, change))
        for pair, change in zip(pairs, ("remove", "role"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.query("SELECT count(*) FROM researchers WHERE role = 'owner'") == [(1,)]


@ON_SQLITE
def test_a_new_password_leaves_the_second_factor(site: Site) -> None:
    visit = Visit(site).signed_in("monitor")
    app, _ = visit.enrol()
    with database.writing(site.app.extensions["rootnote"].engine) as session, session.begin():
        users.change_password(session, "monitor", "another long password")
    assert visit.open().status_code == 303, "they are signed out"
    site.clock.advance(1)
    assert visit.sign_in("monitor").status_code == 401
    asked = visit.sign_in("monitor", "another long password")
    assert visit.open().status_code == 303, "the new password alone opens nothing"
    code = {"sealed": sealed(asked.text), "code": app.at(site.clock.now)}
    assert visit.send("sign-in/code", at="sign-in", **code).status_code == 303


# ------------------------------------------------------------------ the log


def test_sign_ins_are_logged_and_strangers_cannot_fill_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.accounts.attempts.ADDRESS_ATTEMPTS", 10_000)
    monkeypatch.setattr("server.accounts.attempts.UNKNOWN_NAMES_LOGGED", 3)
    visit = Visit(site)
    form = visit.form("sign-in")

    def attempt(name: str) -> int:
        fields = {"form": form, "name": name, "password": "a password mistyped"}
        return visit.client.post("/desk/sign-in", data=fields).status_code

    assert {attempt(f"stranger{number}") for number in range(6)} == {401}
    assert [attempt("monitor") for _ in range(12)] == [401] * 10 + [429] * 2
    visit.signed_in("owner").send("sign-out", at="")
    entries = logged(site)
    assert entries.count(("(unknown name)", "failed to sign in", "")) == 3
    assert entries.count(("monitor", "failed to sign in", "wrong password")) == 10
    assert entries.count(("monitor", "was locked out", "too many attempts with one name")) == 1
    assert entries[-2:] == [("owner", "signed in", ""), ("owner", "signed out", "")]
    for private in ("stranger", "127.0.0.1", "mistyped", PASSWORD):
        assert private not in str(entries)


@ON_SQLITE
def test_an_address_that_is_locked_out_is_logged_without_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.accounts.attempts.ADDRESS_ATTEMPTS", 2)
    statuses = [Visit(site).sign_in(f"stranger{number}").status_code for number in range(4)]
    assert statuses == [401, 401, 429, 429]
    entries = logged(site)
    assert entries.count(("(unknown name)", "was locked out", "too many attempts with one address")) == 1
    assert "127.0.0.1" not in str(entries)


# ------------------------------------------------------------------ the command line


def test_roles_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTNOTE_SECRET", SECRET)
    folder = make_study(tmp_path / "study", listeners=1, trials=1).folder
    quick("server", "migrate", folder)
    first = quick_with(PASSWORD, "server", "user", "add", "anna", folder, "--role", "monitor")
    assert "first user must be an owner" in str(first.exception)
    for name, role in (("anna", ()), ("ben", ()), ("cleo", ("--role", "monitor"))):
        assert quick_with(PASSWORD, "server", "user", "add", name, folder, *role).exit_code == 0
    listed = quick("server", "user", "list", folder).output.splitlines()
    assert [line.split()[:2] for line in listed] == [["anna", "owner"], ["ben", "researcher"], ["cleo", "monitor"]]
    for refused in (("role", "anna", "researcher"), ("remove", "anna")):
        assert "last owner" in str(quick("server", "user", *refused, folder).exception)
    assert quick("server", "user", "role", "cleo", "king", folder).exit_code == 2
    assert "no user 'dora'" in str(quick("server", "user", "role", "dora", "owner", folder).exception)
    assert "to owner" in quick("server", "user", "role", "cleo", "owner", folder).output
    assert quick("server", "user", "remove", "anna", folder).exit_code == 0
    assert quick("server", "user", "reset-factor", "cleo", folder).exit_code == 0
    assert "no user 'anna'" in str(quick("server", "user", "reset-factor", "anna", folder).exception)
