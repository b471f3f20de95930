"""Faults of the local Prolific: calls that fail, arrive twice or are refused, and late webhooks."""

from __future__ import annotations

import httpx
import pytest

from server.simulation.fake_prolific import FakeProlific
from tests.server.simulation.test_fake_prolific import Client, P, client, connect, market, refused

__all__ = ["client", "market"]  # fixtures


@pytest.mark.parametrize(
    ("how", "done"), [("throttle", 0), ("fail", 0), ("timeout_before", 0), ("fail_after", 1), ("timeout_after", 1)]
)
def test_faults_strike_the_nth_call(market: FakeProlific, client: Client, how: str, done: int) -> None:
    market.fail("CreateStudy", 2, how)
    client.make()
    with pytest.raises((ValueError, httpx.TransportError)):
        client.make()
    client.make()
    assert len(client.ask("GET", "/studies/")["results"]) == 2 + done
    assert [call.fault for call in market.calls if call.fault] == [how]


def test_what_arrives_twice_is_done_twice(market: FakeProlific, client: Client) -> None:
    study = client.make()
    held = market.take(P[0], study)
    market.fail("CreateStudy", 1, "twice")
    client.make(publish=False)
    assert len(client.ask("GET", "/studies/")["results"]) == 3
    market.fail("PayBonuses", 1, "twice")
    client.pay(client.bonus(study, f"{held.submission_id},1.00"))
    assert client.submission(held.submission_id)["bonus_payments"] == [100, 100]


def test_who_may_come_in(market: FakeProlific, client: Client) -> None:
    with connect(market, token="another") as stranger, refused("^401: Unauthorized"):
        stranger.ask("GET", "/users/me/")
    market.refuse("suspended")
    with refused("^403: Suspended"):
        client.ask("GET", "/users/me/")
    market.refuse("")
    assert client.ask("GET", "/users/me/").keys() == {"id", "email"}
    workspace = client.ask("GET", "/workspaces/")["results"][0]["id"]
    assert client.ask("GET", f"/workspaces/{workspace}/balance/")["available_balance"] == 10_000
    with refused("^404"):
        client.ask("GET", "/nothing/")
    with refused("not a JSON object"):
        client.ask("POST", "/studies/", content=b"[")


def test_webhooks_come_late_twice_and_out_of_order(market: FakeProlific, client: Client) -> None:
    study = client.make(total_available_places=10)
    for who in P[:10]:
        market.return_(market.take(who, study).submission_id)
    first = market.deliver(seed=1, duplicate=0.5, late=0.5)
    rest = market.deliver()
    ids = [one.id for one in first]
    assert len(set(ids)) < len(ids), "some came twice"
    assert rest and len(set(ids) | {one.id for one in rest}) == 31, "none is lost"
    assert {one.event for one in first} <= {"submission.status.change", "study.status.change"}
