"""Events of Prolific at /hooks/prolific: signed ones free a place, once; all others change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session
from werkzeug.test import Client

from server.db import database
from server.identity.vault import Vault
from server.recruiting import webhooks
from server.recruiting.marketplaces.prolific_webhooks import EVENT_ID, SENT, SIGNATURE, sign
from tests.server.conftest import FakeClock, Site, Walker
from tests.server.recruiting.mturk_study import KEY, NO_PRESCREEN

HOOK_SECRET = "the secret of a workspace"
STUDY, WORKER, PLACE = "a" * 24, "b" * 24, "c" * 24
ARRIVAL = f"?PROLIFIC_PID={WORKER}&STUDY_ID={STUDY}&SESSION_ID={PLACE}"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A study on Prolific that is open there."""
    settings = {"vault": Vault([KEY]), "webhook_secret": HOOK_SECRET}
    found = make_site(listeners=1, trials=1, toml='[recruiter]\nkind = "prolific"\n' + NO_PRESCREEN, settings=settings)
    with session_of(found) as session, session.begin():
        session.connection().exec_driver_sql(
            "INSERT INTO openings (token, places, reward_cents, fee_cents, market_id, ordered_at) "
            f"VALUES ('t', 1, 150, 50, '{STUDY}', '2026-03-01 12:00:00')"
        )
    return found


def session_of(site: Site) -> Session:
    return database.writing(site.app.extensions["rootnote"].engine)


def event(status: str = "RETURNED", **changed: Any) -> dict[str, Any]:
    given = {"event_type": "submission.status.change", "resource_id": PLACE, "participant_id": WORKER, "status": status}
    return given | changed


def send(
    site: Site, body: Any, *, id_: str = "e1", secret: str = HOOK_SECRET, after: timedelta = timedelta(), **headers: str
) -> int:
    sent = str(int((site.clock.now + after).timestamp()))
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {SIGNATURE: sign(secret, sent, raw), SENT: sent, EVENT_ID: id_} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return Client(site.app).post("/hooks/prolific", data=raw, headers=given).status_code


def arrive(site: Site) -> Walker:
    walker = site.walker().open(ARRIVAL)
    fields = {name: walker.find(rf'name="{name}" value="([^"]+)"') for name in ("entry", "arrival")}
    walker.address = walker.client.post("/take", data=fields).location
    walker.reload()
    return walker


def state_of(site: Site) -> list[Any]:
    held = "SELECT count(*) FROM places WHERE assignment_id IS NOT NULL"
    return [
        [row[0] for row in site.query(sql)]
        for sql in ("SELECT state FROM assignments", "SELECT status FROM submissions", held)
    ]


@pytest.mark.both_databases
@pytest.mark.parametrize("status", ["RETURNED", "TIMED-OUT"])
def test_a_signed_event_frees_the_place_once_and_old_ones_change_nothing(site: Site, status: str) -> None:
    arrive(site)
    assert send(site, event("ACTIVE"), id_="e0") == 204
    assert state_of(site) == [["screened"], ["held"], [1]]
    assert send(site, event(status)) == 204
    freed = [["returned"], ["returned" if status == "RETURNED" else "timed_out"], [0]]
    assert state_of(site) == freed
    arrive(site)  # they took the same place again: an old event that comes once more does not end that
    assert state_of(site)[0] == ["screened"]
    for again in (event(status), event("ACTIVE")):
        assert send(site, again) == 204
    assert state_of(site)[0] == ["screened"]
    assert site.query("SELECT count(*) FROM webhook_events") == [(2,)]


@on_sqlite
def test_a_late_event_does_not_undo_what_came_after_it(site: Site) -> None:
    walker = arrive(site)
    walker.go("instructions")
    walker.listen().finish()
    assert send(site, event("TIMED-OUT")) == 204
    assert state_of(site) == [["finished"], ["timed_out"], [1]], "their work is kept, and paid"


@on_sqlite
def test_events_wait_for_the_next_synchronisation(site: Site) -> None:
    ignored = event(event_type="study.progress.change")
    other = event(participant_id="d" * 24)
    study = {"event_type": "study.status.change", "resource_id": STUDY, "status": "PAUSED", "metadata": {}}
    for number, (body, waiting) in enumerate([(ignored, False), (other, True), (study, True)]):
        assert send(site, body, id_=f"n{number}") == 204
        with session_of(site) as session, session.begin():
            assert webhooks.is_waiting(session) is waiting
            webhooks.mark_handled(session, site.clock.now)
            assert not webhooks.is_waiting(session)


@on_sqlite
def test_what_is_not_signed_or_not_an_event_changes_nothing(site: Site) -> None:
    arrive(site)
    before = state_of(site)
    body = event()
    refused = [
        send(site, body, secret="another"),
        send(site, body, X_Prolific_Request_Signature=""),
        send(site, body, X_Prolific_Request_Signature="é"),
        send(site, body, X_Prolific_Request_Signature="A" * 44),
        send(site, body, X_Prolific_Request_Timestamp="1"),
        send(site, body, after=timedelta(hours=-26)),
        send(site, body, after=timedelta(minutes=6)),
    ]
    assert set(refused) == {401}
    wrong = [b"", b"[]", b"{", b"\xff", event(resource_id=""), event(participant_id="b" * 25), event(resource_id=None)]
    assert {send(site, one) for one in wrong} == {400}
    assert send(site, b" " * 20_000) == 413
    client = Client(site.app)
    assert client.post("/hooks/prolific").status_code == 401
    assert client.get("/hooks/prolific").status_code == 405
    assert client.post("/hooks/mturk").status_code == 404
    assert state_of(site) == before
    assert site.query("SELECT count(*) FROM webhook_events") == [(0,)]


@on_sqlite
def test_without_a_secret_nothing_is_received(make_site: Callable[..., Site], clock: FakeClock) -> None:
    site = make_site(toml='[recruiter]\nkind = "prolific"\n', settings={"vault": Vault([KEY])})
    assert send(site, event(), secret="") == 404
