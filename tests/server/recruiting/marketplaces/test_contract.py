"""What every recruiter promises, asked of each: doing again what is done already changes nothing, and costs nothing.

A `House` is a recruiter with a marketplace behind it in which a test can be the worker. Add yours to HOUSES.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from embeddings.errors import RootnoteError
from server.recruiting.marketplaces.base import ArrivalError, DirectPayment, Marketplace, PostingOrder
from server.recruiting.marketplaces.registry import MARKETPLACES, make_marketplace
from server.simulation.fake_mturk import FakeMTurk
from server.simulation.fake_prolific import FakeProlific
from study.config import Study, StudyConfig
from study.config_sections import StudyInfo

URL, LAUNCH = "https://study.example.org/take", "0123abcd-1"


@dataclass(frozen=True)
class House:
    """A recruiter, and what a worker can do at its marketplace.

    `accept(opening)` gives the parameters with which the worker then arrives at the study; `submit` and `give_back`
    take a submission's id; `paid()` is everything that left the account, in cents, fees included.
    """

    marketplace: Marketplace
    accept: Callable[[str], dict[str, str]] | None = None
    submit: Callable[[str], None] = lambda submission: None
    give_back: Callable[[str], None] = lambda submission: None
    paid: Callable[[], int] = lambda: 0
    preview: dict[str, str] | None = None
    nonsense: tuple[dict[str, str], ...] = ()


def a_study(**recruiter: Any) -> Study:
    data: dict[str, Any] = {"study": StudyInfo(name="Contract"), "corpus": {"audio": "music"}, "recruiter": recruiter}
    return Study(Path("nowhere"), StudyConfig.model_validate(data))


@contextlib.contextmanager
def link_house() -> Iterator[House]:
    yield House(make_marketplace(a_study(kind="link")))


@contextlib.contextmanager
def mturk_house() -> Iterator[House]:
    with FakeMTurk(balance="100.00") as market:
        workers = (market.workers.add(f"A{number}").id for number in itertools.count(1))

        def accept(opening: str) -> dict[str, str]:
            return query_of(market.accept(next(workers), opening).external_url)

        recruiter = make_marketplace(a_study(kind="mturk"), endpoint=market.url)
        preview = {"assignmentId": "ASSIGNMENT_ID_NOT_AVAILABLE", "hitId": "3HIT"}
        given = {"workerId": "A1", "assignmentId": "3A", "hitId": "3H", "turkSubmitTo": "https://www.mturk.com/"}
        wrong: list[dict[str, str]] = [
            {},
            {"worker": "A1"},
            {"workerId": "'; DROP"},
            {"assignmentId": "a/b"},
            {"hitId": ""},
            {"hitId": "<3>"},
            *({"turkSubmitTo": address} for address in FOREIGN),
        ]
        yield House(
            recruiter,
            accept,
            market.submit,
            market.return_,
            lambda: int(sum((entry.amount for entry in market.ledger()), Decimal()) * 100),
            preview,
            (wrong[0], wrong[1], *(given | one for one in wrong[2:])),
        )
        recruiter.disconnect()


@contextlib.contextmanager
def prolific_house() -> Iterator[House]:
    with FakeProlific(balance="100.00") as market:
        people = (market.participants.add(f"{number:024x}").id for number in itertools.count(1))

        def accept(opening: str) -> dict[str, str]:
            return query_of(market.take(next(people), opening).external_url)

        given = {"PROLIFIC_PID": "a" * 24, "STUDY_ID": "b" * 24, "SESSION_ID": "c" * 24}
        wrong: tuple[dict[str, str], ...] = (
            {"STUDY_ID": ""},
            {"SESSION_ID": "{{%SESSION_ID%}}"},
            {"PROLIFIC_PID": "A1"},
        )
        recruiter = make_marketplace(a_study(kind="prolific"), endpoint=market.url)
        yield House(
            recruiter,
            accept,
            lambda submission: market.complete(submission, "ANY"),
            market.return_,
            lambda: int(sum((entry.amount for entry in market.ledger()), Decimal()) * 100),
            None,
            ({}, {"worker": "a" * 24}, *(given | one for one in wrong)),
        )
        recruiter.disconnect()


FOREIGN = (
    "",
    "https://www.mturk.com.example.org/",
    "https://example.org/www.mturk.com",
    "http://www.mturk.com/",
    "https://someone@www.mturk.com/",
    "https://www.mturk.com:8443/",
    "https://www.mturk.com:port/",
    "https://www.mturk.com/elsewhere",
    "javascript:alert(1)",
    "//www.mturk.com",
    "https://[www.mturk.com",
)

HOUSES: dict[str, Callable[[], AbstractContextManager[House]]] = {
    "link": link_house,
    "mturk": mturk_house,
    "prolific": prolific_house,
}


def query_of(address: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address).query))


@pytest.fixture(params=sorted(HOUSES))
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with HOUSES[request.param]() as house:
        yield house


@pytest.fixture
def market(house: House) -> House:
    if house.accept is None:
        pytest.skip("no marketplace stands behind a plain link")
    return house


def an_order(token: str = "places-1", places: int = 3, total: int | None = None) -> PostingOrder:
    return PostingOrder(token, LAUNCH, places, total or places, reward=150, url=URL, minutes=4)


def test_every_recruiter_has_a_house() -> None:
    assert HOUSES.keys() == MARKETPLACES.keys()


def test_an_unknown_recruiter_is_named() -> None:
    study = a_study(kind="link")
    recruiter = study.config.recruiter.model_copy(update={"kind": "carrier-pigeon"})
    config = study.config.model_copy(update={"recruiter": recruiter})
    with pytest.raises(RootnoteError, match="no marketplace 'carrier-pigeon'; choose one of link"):
        make_marketplace(dataclasses.replace(study, config=config))


def test_terms_make_sense(house: House) -> None:
    terms = house.recruiter.capabilities
    assert terms.name
    assert terms.batch is None or terms.batch >= 1


def test_fees_are_whole_cents_and_grow_with_the_sum(house: House) -> None:
    fees = [house.recruiter.fee(cents) for cents in range(1, 400)]
    assert all(type(fee) is int and fee >= 0 for fee in fees)
    assert fees == sorted(fees)


def test_what_is_shown_of_an_order_is_told_without_asking(house: House) -> None:
    shown = dict(house.recruiter.advert(an_order()))
    if house.accept is None:
        assert shown == {"Address": URL}
        return
    assert shown["Title"] == "Listen to short clips of music: which two sound more alike?"
    assert "1.50" in shown["Reward"] and "headphones" in shown["Description"]
    assert all(shown.values())


def test_orders_and_grants_that_make_no_sense_are_refused(house: House) -> None:
    for change in ({"token": ""}, {"token": "x" * 65}, {"places": 0}, {"total": 2}, {"reward": -1}):
        with pytest.raises(ValueError, match=r"token|order"):
            dataclasses.replace(an_order(), **change)


def test_opening_twice_by_one_token_opens_once(house: House) -> None:
    first = house.recruiter.open(an_order())
    assert first
    assert house.recruiter.open(an_order()) == first
    standing = house.recruiter.submissions(first)
    assert standing.submissions == ()
    assert standing.free == (3 if house.accept else 0)


def test_closing_twice_is_harmless_and_leaves_no_place(house: House) -> None:
    opening = house.recruiter.open(an_order())
    house.recruiter.close(opening)
    house.recruiter.close(opening)
    assert house.recruiter.submissions(opening).free == 0
    assert house.paid() == 0


def test_an_account_is_known_or_said_not_to_be(house: House) -> None:
    balance = house.recruiter.account()
    assert balance is None or balance > 0


def test_who_only_looks_is_nobody(market: House) -> None:
    if market.preview is None:
        pytest.skip("this marketplace shows nothing beforehand")
    arrival = market.recruiter.arrive(market.preview)
    assert arrival.preview
    assert arrival.worker is None


def test_addresses_that_no_marketplace_gives_are_refused(market: House) -> None:
    assert market.nonsense
    for query in market.nonsense:
        with pytest.raises(ArrivalError) as caught:
            market.recruiter.arrive(query)
        assert len(str(caught.value).splitlines()) == 1


def test_from_arrival_to_pay_each_step_twice(market: House) -> None:
    recruiter, opening = market.recruiter, market.recruiter.open(an_order())
    assert market.accept is not None
    arrival = recruiter.arrive(market.accept(opening))
    assert (arrival.worker is not None, arrival.opening, arrival.preview) == (True, opening, False)
    standing = recruiter.submissions(opening)
    assert (standing.free, standing.held) == (2, 1)
    assert recruiter.hand_back(arrival, "finished", "CODE").method in ("post", "link")
    assert arrival.worker is not None
    recruiter.exclude(arrival.worker, LAUNCH)
    recruiter.exclude(arrival.worker, LAUNCH)
    market.submit(arrival.submission)
    standing = recruiter.submissions(opening)
    assert (standing.free, standing.held) == (2, 0)
    [submission] = standing.submissions
    assert (submission.id, submission.worker, submission.status) == (arrival.submission, arrival.worker, "submitted")
    recruiter.approve(submission)
    recruiter.approve(submission)
    [approved] = recruiter.submissions(opening).submissions
    assert approved.status == "approved"
    recruiter.approve(approved)
    reward = 150 + recruiter.fee(150, 3)
    assert market.paid() == reward
    grant = DirectPayment("bonus-1", approved, 25, "bonus", "Thank you for your care.")
    assert not recruiter.has_paid(grant)
    recruiter.bonus(grant)
    assert recruiter.has_paid(grant)
    recruiter.bonus(grant)
    assert market.paid() == reward + 25 + recruiter.fee(25, 3)
    assert not recruiter.has_paid(dataclasses.replace(grant, token="bonus-2"))


def test_a_place_that_is_given_back_may_be_taken_again(market: House) -> None:
    recruiter, opening = market.recruiter, market.recruiter.open(an_order())
    assert market.accept is not None
    arrival = recruiter.arrive(market.accept(opening))
    market.give_back(arrival.submission)
    standing = recruiter.submissions(opening)
    assert (standing.free, standing.held) == (3, 0)
    assert [one for one in standing.submissions if one.status in ("held", "submitted")] == []
