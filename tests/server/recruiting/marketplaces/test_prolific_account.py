"""The account at Prolific, and what is refused before anything is spent."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from server.recruiting.marketplaces.base import ArrivalError, MarketplaceError
from server.recruiting.marketplaces.prolific import ProlificMarketplace
from server.recruiting.marketplaces.prolific_config import ProlificConfig, least_maximum
from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplaces.http_messages import HttpReply
from tests.server.recruiting.marketplaces.test_contract import an_order
from tests.server.recruiting.marketplaces.test_prolific import a_study


@pytest.fixture
def market() -> Iterator[FakeProlific]:
    with FakeProlific("100.00") as market:
        yield market


@pytest.fixture
def look(market: FakeProlific) -> Iterator[Callable[..., ProlificMarketplace]]:
    made: list[ProlificMarketplace] = []

    def make(**settings: Any) -> ProlificMarketplace:
        made.append(ProlificMarketplace(a_study(**settings), endpoint=market.url))
        made[-1]._api._sleep = lambda seconds: None
        return made[-1]

    yield make
    for one in made:
        one.disconnect()


def test_a_project_is_always_named(market: FakeProlific, look: Callable[..., ProlificMarketplace]) -> None:
    opened = look().open(an_order())
    assert market.state.studies[opened].given.project == next(iter(market.state.projects))
    market.state.projects["b" * 24] = "Another"
    with pytest.raises(MarketplaceError, match=r"set recruiter.prolific.project in study.toml to one of"):
        look().account()
    assert look(project="b" * 24).account() is not None
    with pytest.raises(MarketplaceError, match="the workspace has no such project; it has: "):
        look(project="c" * 24).account()
    market.state.projects.clear()
    with pytest.raises(MarketplaceError, match="the account on Prolific has no project"):
        look().account()


def test_a_study_is_found_among_many(market: FakeProlific, look: Callable[..., ProlificMarketplace]) -> None:
    market.state.deposit = Decimal(1000)
    orders = [dataclasses.replace(an_order(), launch=f"{number:08x}-1") for number in range(25)]
    opened = [look().open(order) for order in orders]
    assert [look().open(order) for order in orders[-2:]] == opened[-2:]
    assert len(market.state.studies) == 25


def test_filters_of_study_toml_are_checked_and_counted(
    market: FakeProlific, look: Callable[..., ProlificMarketplace]
) -> None:
    for index in range(4):
        market.participants.add(f"{index:024x}", answers={"handedness": str(index % 2)})
    right = look(filters=[{"id": "handedness", "values": ["1"]}, {"id": "age", "lowest": 30, "highest": 40}])
    assert right.account() is not None
    assert right.audience() == 2
    study = market.state.studies[right.open(an_order())]
    assert [one.filter_id for one in study.given.filters or []][-3:-1] == ["handedness", "age"]
    with pytest.raises(MarketplaceError, match="Prolific has no filter 'shoe-size'"):
        look(filters=[{"id": "shoe-size", "values": ["1"]}]).account()
    with pytest.raises(MarketplaceError, match="filter 'handedness' has no choice '9'"):
        look(filters=[{"id": "handedness", "values": ["9"]}]).account()
    for wrong, words in (
        ({"id": "age"}, "either values, or lowest"),
        ({"id": "approval_rate", "lowest": 1}, "its own"),
    ):
        with pytest.raises(Exception, match="setting of its own" if words == "its own" else words):
            a_study(filters=[wrong])


@pytest.mark.parametrize(
    ("currency", "reward", "minutes", "refused"),
    [("USD", 150, 11.25, False), ("USD", 150, 11.3, True), ("GBP", 117, 11.7, False), ("GBP", 117, 11.8, True)],
)
def test_pay_below_prolifics_minimum_is_refused(currency: str, reward: int, minutes: float, refused: bool) -> None:
    marketplace = ProlificMarketplace(a_study(currency=currency))
    if refused:
        with pytest.raises(MarketplaceError, match=r"an hour, and Prolific's minimum is \d.00: raise the reward"):
            marketplace.check_terms(reward, minutes)
    else:
        marketplace.check_terms(reward, minutes)


def test_the_longest_time_is_at_least_what_prolific_takes(
    market: FakeProlific, look: Callable[..., ProlificMarketplace]
) -> None:
    assert [least_maximum(minutes) for minutes in (4, 25, 30, 60)] == [14, 62, 73, 138]
    assert ProlificConfig(max_minutes=60).longest(4) == 60
    market.state.deposit = Decimal(1000)
    for minutes in (4, 25, 40, 60):
        order = dataclasses.replace(an_order(), launch=f"{minutes:08x}-1", minutes=minutes, reward=20 * minutes)
        assert look().open(order) in market.state.studies


def test_what_a_workspace_may_not_use_is_left_out(
    market: FakeProlific, look: Callable[..., ProlificMarketplace]
) -> None:
    market.state.features = {"secure_urls"}
    marketplace = look()
    marketplace._drafts._config.pay.__dict__["screened_out"] = 0.5
    marketplace._drafts._config.pay.__dict__["without_sound"] = 0.5
    assert "where the workspace may" in marketplace.screen_out_plan().sentence.lower()
    plan = marketplace.screen_out_plan(ask=True)
    assert plan.way == "return_and_bonus"
    assert plan.sentence.startswith("This workspace cannot pay screen-outs by itself: everyone who is screened out is")
    assert list(market.state.studies) == [], "what was tried is deleted"
    study = market.state.studies[marketplace.open(an_order())]
    assert study.given.is_external_study_url_secure and not study.slots
    assert [action.action for action in study.given.completion_codes[1].actions] == ["REQUEST_RETURN"]
    assert marketplace.submissions(study.id).secure and marketplace.notes() == ()
    market.state.features = set()
    plain = look()
    assert plain.notes() == (), "nothing was tried yet"
    plain.screen_out_plan(ask=True)
    assert plain.notes()[0].startswith("This workspace has no signed addresses")


class CutOff(FakeProlific):
    """Answers that end too early, and one that is no list."""

    cut: str = ""

    def handle(self, request: Any) -> HttpReply:
        reply = super().handle(request)
        return HttpReply(reply.status, reply.body[:-3]) if self.cut and self.cut in request.path else reply


@pytest.mark.parametrize("operation", ["throttle", "fail", "unauthorized", "suspended"])
def test_an_account_that_cannot_be_used_is_said_in_one_sentence(
    market: FakeProlific, look: Callable[..., ProlificMarketplace], operation: str
) -> None:
    market.refuse(operation)
    with pytest.raises(MarketplaceError) as caught:
        look().account()
    assert str(caught.value).count("\n") == 0 and str(caught.value).startswith("Prolific ")
    with pytest.raises(MarketplaceError):
        look().open(an_order())
    market.refuse("")
    assert market.on_hold == 0 and not market.state.studies


def test_an_answer_that_is_cut_off_spends_nothing_and_the_next_try_goes_on() -> None:
    with CutOff("100.00") as market:
        marketplace = ProlificMarketplace(a_study(), endpoint=market.url)
        marketplace._api._sleep = lambda seconds: None
        for path in ("/workspaces/", "/studies/"):
            market.cut = path
            with pytest.raises(MarketplaceError, match="cut off"):
                marketplace.account() if path == "/workspaces/" else marketplace.open(an_order())
        market.cut = "/transition/"  # published all the same, as the study itself shows
        opened = marketplace.open(an_order())
        running = [one for one in market.state.studies.values() if one.status != "UNPUBLISHED"]
        assert [one.id for one in running] == [opened]
        assert market.on_hold == 6
        marketplace.disconnect()


def test_webhooks_are_signed_and_confirmed(market: FakeProlific, look: Callable[..., ProlificMarketplace]) -> None:
    got: list[httpx.Request] = []
    marketplace = look()
    key = marketplace.webhook_secret()
    assert marketplace.webhook_secret() == key
    made = marketplace.subscribe("study.status.change", "http://127.0.0.1:9/hooks")
    assert made.secret and not made.enabled
    with pytest.raises(MarketplaceError, match="not the subscription's secret"):
        marketplace.confirm_subscription(made.id, "another")
    marketplace.confirm_subscription(made.id, made.secret)
    assert marketplace.subscribe("study.status.change", "http://127.0.0.1:9/hooks").enabled
    assert len(marketplace.subscriptions()) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "post", lambda to, **given: got.append(httpx.Request("POST", to, **without(given))))
        marketplace.open(an_order())
        for _ in range(100):
            if got:
                break
            time.sleep(0.05)
    sent = got[0]
    text = sent.headers["X-Prolific-Request-Timestamp"] + sent.content.decode()
    expected = base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()
    assert sent.headers["X-Prolific-Request-Signature"] == expected and sent.headers["X-Event-ID"]


def without(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "timeout"}


def test_an_id_with_a_newline_is_no_id() -> None:
    query = ProlificMarketplace.sample_query(1, 1)
    with pytest.raises(ArrivalError):
        ProlificMarketplace(a_study()).arrive(query | {"PROLIFIC_PID": query["PROLIFIC_PID"] + "\n"})
