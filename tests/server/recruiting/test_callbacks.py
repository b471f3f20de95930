"""Calls from server to server: once for each finished run, retried only where nothing can have arrived."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from server.commands.recruiting_actions import open_context
from server.identity.vault import Vault
from server.recruiting import callbacks
from tests.commands import run
from tests.server.conftest import Site
from tests.server.recruiting.panel_study import (
    KEY,
    QUIET,
    TONES,
    Panelist,
    PanelServer,
    command,
    environment_of,
    panel_server,
    recipe,
)

PATH = "/services/SonaAPI.svc/WebstudyCredit?experiment_id=123&credit_token=9185d436e5f94b1581b0918162f6d7e8"


@pytest.fixture
def panel() -> Iterator[PanelServer]:
    with panel_server() as panel:
        yield panel


@pytest.fixture
def make_sona(make_site: Callable[..., Site]) -> Callable[..., Site]:
    """A study whose finished runs are reported to this address."""

    def make(url: str, prescreen: str = QUIET) -> Site:
        toml = recipe("Sona, from server to server").replace("https://school.sona-systems.com", url)
        site = make_site({"vault": Vault([KEY])}, listeners=3, trials=1, toml=prescreen + toml)
        command(site, "open")
        return site

    return make


def states(site: Site) -> list[tuple[str, int, str]]:
    return [tuple(row) for row in site.query("SELECT state, attempts, answer FROM callbacks ORDER BY id")]


def make_due(site: Site) -> None:
    """Let the time until the next attempt pass."""
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.exec_driver_sql("UPDATE callbacks SET next_at = called_at WHERE next_at IS NOT NULL")


@pytest.mark.both_databases
def test_sona_from_server_to_server(make_sona: Callable[..., Site], panel: PanelServer) -> None:
    site = make_sona(panel.url, TONES)
    done = Panelist(site).come(x="48213").complete()
    Panelist(site).come(x="48214").agree().go("leave", confirm="yes")
    Panelist(site).come(x="48215").agree()
    assert done.back == "", "the call is enough"
    for _ in range(3):
        command(site, "sync")
    assert panel.asked == [f"{PATH}&survey_code=48213"]
    assert states(site) == [("done", 1, "HTTP 200")]
    logged = [row[0] for row in site.query("SELECT detail FROM log WHERE what = 'called the panel'")]
    assert len(logged) == 1 and logged[0].endswith("done, HTTP 200") and "48213" not in logged[0]


@pytest.mark.parametrize(
    ("statuses", "passes", "asked", "expected"),
    [
        ([503, 429, 200], 4, 3, ("done", 3, "HTTP 200")),
        ([500, 200], 3, 1, ("unclear", 1, "HTTP 500")),
        ([302, 200], 3, 1, ("unclear", 1, "HTTP 302")),
        ([0, 200], 3, 1, ("unclear", 1, "no clear answer (RemoteProtocolError)")),
        ([403, 200], 3, 1, ("refused", 1, "HTTP 403")),
        ([503], 12, 8, ("refused", 8, "HTTP 503")),
    ],
)
def test_only_what_cannot_have_arrived_is_sent_again(
    make_sona: Callable[..., Site], panel: PanelServer, statuses: list[int], passes: int, asked: int, expected: Any
) -> None:
    panel.statuses = statuses
    site = make_sona(panel.url)
    Panelist(site).come(x="1").complete()
    for _ in range(passes):
        printed = command(site, "sync")
        make_due(site)
    assert (len(panel.asked), states(site)) == (asked, [expected])
    assert ("1 callback to the panel needs a decision" in printed) == (expected[0] != "done")


def test_a_retry_waits_longer_each_time(make_sona: Callable[..., Site], panel: PanelServer) -> None:
    panel.statuses = [503]
    site = make_sona(panel.url)
    Panelist(site).come(x="1").complete()
    for _ in range(2):
        command(site, "sync")
    assert len(panel.asked) == 1, "not before its time"
    make_due(site)
    command(site, "sync")
    assert states(site) == [("waiting", 2, "HTTP 503")]


def test_a_panel_that_cannot_be_reached_is_called_later(make_sona: Callable[..., Site]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        site = make_sona(f"http://127.0.0.1:{closed.getsockname()[1]}")
        Panelist(site).come(x="1").complete()
        command(site, "sync")
    assert states(site) == [("waiting", 1, "not reached (ConnectError)")]


def test_a_declined_run_is_neither_called_for_nor_paid(make_sona: Callable[..., Site], panel: PanelServer) -> None:
    site = make_sona(panel.url)
    false, true = (Panelist(site).come(x=number).complete() for number in ("1", "2"))
    [(pseudonym,)] = site.query(f"SELECT pseudonym FROM assignments WHERE completion_code = '{false.code}'")
    command(site, "confirm", pseudonym, "--decline", "--reason", "an invented id")
    printed = command(site, "sync") + command(site, "pay", "--yes")
    assert panel.asked == [f"{PATH}&survey_code=2"]
    assert true.code in printed and false.code not in printed
    assert site.query("SELECT count(*) FROM places WHERE filled") == [(1,)], "somebody else may fill the other"
    assert f"{false.code},unconfirmed,0.00" in command(site, "codes")


@pytest.mark.parametrize("moment", ["before the call", "after the call"])
def test_a_crash_never_sends_twice_and_asks_a_person(
    make_sona: Callable[..., Site], panel: PanelServer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    site = make_sona(panel.url)
    one = Panelist(site).come(x="1").complete()

    def crash(address: str, **options: Any) -> None:
        if moment == "after the call":
            get(address, **options)
        raise KeyboardInterrupt

    get = httpx.get
    monkeypatch.setattr(httpx, "get", crash)
    with pytest.raises(AssertionError):
        command(site, "sync")
    monkeypatch.undo()
    arrived = len(panel.asked)
    assert "1 callback to the panel needs a decision" in command(site, "sync")
    assert len(panel.asked) == arrived == (moment == "after the call")
    [listed] = json.loads(command(site, "callbacks", "--json"))
    assert (listed["state"], listed["answer"]) == ("unclear", "the call was interrupted")
    assert one.code not in json.dumps(listed)
    if arrived:
        command(site, "callbacks", "--arrived", listed["pseudonym"])
    else:
        command(site, "callbacks", "--again", listed["pseudonym"])
    command(site, "sync")
    assert len(panel.asked) == 1 and states(site)[0][0] == "done"


def test_a_decision_needs_an_unclear_call(make_sona: Callable[..., Site], panel: PanelServer) -> None:
    site = make_sona(panel.url)
    assert "No call was made yet." in command(site, "callbacks")
    with pytest.raises(AssertionError, match="has no callback that needs a decision"):
        command(site, "callbacks", "--again", "0123456789abcdef")


def test_a_deleted_identity_is_not_sent(make_sona: Callable[..., Site], panel: PanelServer) -> None:
    site = make_sona(panel.url)
    Panelist(site).come(x="1").complete()
    with site.app.extensions["rootnote"].engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM vault")
    command(site, "sync")
    assert (panel.asked, states(site)) == ([], [("refused", 1, "the participant's id is deleted")])


@pytest.mark.parametrize("real", [False, True])
def test_a_rehearsal_calls_this_machine_only(
    make_sona: Callable[..., Site], panel: PanelServer, monkeypatch: pytest.MonkeyPatch, real: bool
) -> None:
    site = make_sona("https://school.sona-systems.com" if real else panel.url)
    Panelist(site).come(x="1").complete()
    if real:
        monkeypatch.setattr(httpx, "get", lambda *_, **__: pytest.fail("a rehearsal called another machine"))
    for name, value in environment_of(site).items():
        monkeypatch.setenv(name, value)
    with open_context(site.study.folder, rehearsal=False) as opened:
        accepted = callbacks.deliver_callbacks(opened.recruiting, print, rehearsal=True)
    assert (accepted, len(panel.asked), len(states(site))) == ((0, 0, 0) if real else (1, 1, 1))


def test_who_a_person_is_stays_known_until_the_panel_was_called(
    make_sona: Callable[..., Site], panel: PanelServer
) -> None:
    site = make_sona(panel.url)
    one, other = (Panelist(site).come(x=name).complete() for name in ("1", "2"))
    told = run("server", "disclose", one.code, site.study.folder, environment=environment_of(site))
    assert json.loads(told.stdout)["identity"]["worker"] == "1"
    one.go("withdraw", confirm="yes")
    erased = run("server", "erase", other.code, site.study.folder, "--yes", environment=environment_of(site))
    assert erased.returncode == 0, erased.stderr
    command(site, "pay", "--yes")
    site.clock.advance(2 * 3600)
    Panelist(site).come(x="3")  # once an hour, identities are deleted that nobody needs
    command(site, "close", "--yes")
    early = run("server", "purge", site.study.folder, "--now", "--yes", environment=environment_of(site))
    assert (early.returncode, "calls to the panel have no result yet" in early.stderr) == (1, True), early
    command(site, "sync")
    assert [path.rpartition("=")[2] for path in panel.asked] == ["1", "2"]
    assert "Deleted the identities of" in command(site, "purge", "--now", "--yes")
