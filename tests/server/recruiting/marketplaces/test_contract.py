"""What every marketplace promises, tested on each: repeating a call changes nothing and costs nothing.

A `MarketplaceCase` is a marketplace with a local one behind it, in which the test plays the worker. Add yours to CASES.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import subprocess
import sys
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
from tests.extensions.toy_marketplace import TOY

URL, LAUNCH = "https://study.example.org/take", "0123abcd-1"


@dataclass(frozen=True)
class MarketplaceCase:
    """A marketplace, and what a worker can do there.

    `accept(opening)` gives the parameters with which the worker then arrives at the study; `submit` and `return_place`
    take a submission's id; `paid()` is everything that left the account, in cents, fees included.
    """

    marketplace: Marketplace
    accept: Callable[[str], dict[str, str]] | None = None
    submit: Callable[[str], None] = lambda submission: None
    return_place: Callable[[str], None] = lambda submission: None
    paid: Callable[[], int] = lambda: 0
    preview: dict[str, str] | None = None
    nonsense: tuple[dict[str, str], ...] = ()


def a_study(**recruiter: Any) -> Study:
    data: dict[str, Any] = {"study": StudyInfo(name="Contract"), "corpus": {"audio": "music"}, "recruiter": recruiter}
    return Study(Path("nowhere"), StudyConfig.model_validate(data))


@contextlib.contextmanager
def link_case() -> Iterator[MarketplaceCase]:
    yield MarketplaceCase(make_marketplace(a_study(kind="link")))


@contextlib.contextmanager
def toy_case() -> Iterator[MarketplaceCase]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MARKETPLACES.built_in, "toy", TOY)
        given = {"participant": "p1", "session": "s1"}
        wrong: tuple[dict[str, str], ...] = ({}, {"participant": ""}, {"session": "<3>"})
        yield MarketplaceCase(
            make_marketplace(a_study(kind="toy", toy={"project": "p7"})),
            nonsense=(wrong[0], *(given | one for one in wrong[1:])),
        )


@contextlib.contextmanager
def mturk_case() -> Iterator[MarketplaceCase]:
    with FakeMTurk(balance="100.00") as market:
        workers = (market.workers.add(f"A{number}").id for number in itertools.count(1))

        def accept(opening: str) -> dict[str, str]:
            return query_of(market.accept(next(workers), opening).external_url)

        marketplace = make_marketplace(a_study(kind="mturk"), endpoint=market.url)
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
        yield MarketplaceCase(
            marketplace,
            accept,
            market.submit,
            market.return_,
            lambda: int(sum((entry.amount for entry in market.ledger()), Decimal()) * 100),
            preview,
            (wrong[0], wrong[1], *(given | one for one in wrong[2:])),
        )
        marketplace.disconnect()


@contextlib.contextmanager
def prolific_case() -> Iterator[MarketplaceCase]:
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
        marketplace = make_marketplace(a_study(kind="prolific"), endpoint=market.url)
        yield MarketplaceCase(
            marketplace,
            accept,
            lambda submission: market.complete(submission, "ANY"),
            market.return_,
            lambda: int(sum((entry.amount for entry in market.ledger()), Decimal()) * 100),
            None,
            ({}, {"worker": "a" * 24}, *(given | one for one in wrong)),
        )
        marketplace.disconnect()


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

CASES: dict[str, Callable[[], AbstractContextManager[MarketplaceCase]]] = {
    "link": link_case,
    "mturk": mturk_case,
    "prolific": prolific_case,
    "toy": toy_case,  # of tests.extensions: what a new marketplace must do
}


def query_of(address: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address).query))


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Iterator[MarketplaceCase]:
    with CASES[request.param]() as case:
        yield case


@pytest.fixture
def market(case: MarketplaceCase) -> MarketplaceCase:
    if case.accept is None:
        pytest.skip("a marketplace that is used by hand")
    return case


def an_order(token: str = "places-1", places: int = 3, total: int | None = None) -> PostingOrder:
    return PostingOrder(token, LAUNCH, places, total or places, reward=150, url=URL, minutes=4)


def test_every_marketplace_has_a_case() -> None:
    assert CASES.keys() == MARKETPLACES.keys() | {"toy"}


def test_reading_a_study_imports_no_client_library() -> None:
    program = (
        "import sys; from study.config import StudyConfig; "
        "StudyConfig.model_validate({'study': {'name': 'x'}, 'corpus': {'audio': 'm'}}); "
        "print(sorted({'boto3', 'botocore', 'httpx', 'sqlalchemy', 'flask'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_an_unknown_marketplace_is_named() -> None:
    study = a_study(kind="link")
    recruiter = study.config.recruiter.model_copy(update={"kind": "carrier-pigeon"})
    config = study.config.model_copy(update={"recruiter": recruiter})
    with pytest.raises(RootnoteError, match="no marketplace 'carrier-pigeon'; choose one of link"):
        make_marketplace(dataclasses.replace(study, config=config))


def test_capabilities_make_sense(case: MarketplaceCase) -> None:
    capabilities = case.marketplace.capabilities
    assert capabilities.name
    assert capabilities.batch is None or capabilities.batch >= 1
    assert not (capabilities.opens_by_hand and capabilities.lists_submissions)
    assert capabilities.pays_by_hand or capabilities.lists_submissions, "approvals need the list of submissions"


def test_the_packet_and_the_pages_have_what_they_need(case: MarketplaceCase) -> None:
    marketplace = case.marketplace
    assert marketplace.listing_note.endswith(".") and marketplace.payment_note.endswith(".")
    assert all(origin.startswith("https://") for origin in (*marketplace.frame_origins, *marketplace.form_origins))
    assert all(key in marketplace.Settings.model_fields for key in marketplace.Settings.private)


def test_a_sample_arrival_is_one_that_the_marketplace_accepts(case: MarketplaceCase) -> None:
    marketplace = case.marketplace
    first, second = (marketplace.arrive(marketplace.sample_query(person, 1)) for person in (1, 2))
    assert first.worker and second.worker and first.worker != second.worker
    if marketplace.capabilities.has_arrivals:
        assert first.opening == marketplace.sample_opening and first.submission
        assert marketplace.arrive(marketplace.sample_query(1, 2)).submission != first.submission
    if marketplace.capabilities.has_preview:
        assert marketplace.arrive(marketplace.sample_query(1, 1, preview=True)).preview


def test_fees_are_whole_cents_and_grow_with_the_sum(case: MarketplaceCase) -> None:
    fees = [case.marketplace.fee(cents) for cents in range(1, 400)]
    assert all(type(fee) is int and fee >= 0 for fee in fees)
    assert fees == sorted(fees)


def test_the_advert_needs_no_network(case: MarketplaceCase) -> None:
    shown = dict(case.marketplace.advert(an_order()))
    if case.marketplace.capabilities.opens_by_hand:
        assert shown["Address"].startswith(URL)
        return
    assert shown["Title"] == "Listen to short clips of music: which two sound more alike?"
    assert "1.50" in shown["Reward"] and "headphones" in shown["Description"]
    assert all(shown.values())


def test_orders_that_make_no_sense_are_refused(case: MarketplaceCase) -> None:
    for change in ({"token": ""}, {"token": "x" * 65}, {"places": 0}, {"total": 2}, {"reward": -1}):
        with pytest.raises(ValueError, match=r"token|order"):
            dataclasses.replace(an_order(), **change)


def test_opening_twice_by_one_token_opens_once(case: MarketplaceCase) -> None:
    first = case.marketplace.open(an_order())
    assert first
    assert case.marketplace.open(an_order()) == first
    standing = case.marketplace.submissions(first)
    assert standing.submissions == ()
    assert standing.free == (3 if case.accept else 0)


def test_closing_twice_is_harmless_and_leaves_no_place(case: MarketplaceCase) -> None:
    opening = case.marketplace.open(an_order())
    case.marketplace.close(opening)
    case.marketplace.close(opening)
    assert case.marketplace.submissions(opening).free == 0
    assert case.paid() == 0


def test_a_balance_is_known_or_none(case: MarketplaceCase) -> None:
    balance = case.marketplace.account()
    assert balance is None or balance > 0


def test_a_preview_names_no_worker(market: MarketplaceCase) -> None:
    if market.preview is None:
        pytest.skip("this marketplace shows nothing beforehand")
    arrival = market.marketplace.arrive(market.preview)
    assert arrival.preview
    assert arrival.worker is None


def test_addresses_that_no_marketplace_gives_are_refused(case: MarketplaceCase) -> None:
    assert bool(case.nonsense) == case.marketplace.capabilities.has_arrivals
    for query in case.nonsense:
        with pytest.raises(ArrivalError) as caught:
            case.marketplace.arrive(query)
        assert len(str(caught.value).splitlines()) == 1


def test_from_arrival_to_pay_each_step_twice(market: MarketplaceCase) -> None:
    marketplace, opening = market.marketplace, market.marketplace.open(an_order())
    assert market.accept is not None
    arrival = marketplace.arrive(market.accept(opening))
    assert (arrival.worker is not None, arrival.opening, arrival.preview) == (True, opening, False)
    standing = marketplace.submissions(opening)
    assert (standing.free, standing.held) == (2, 1)
    assert marketplace.make_return_link(arrival, "finished", "CODE").method in ("post", "link")
    assert arrival.worker is not None
    marketplace.exclude(arrival.worker, LAUNCH)
    marketplace.exclude(arrival.worker, LAUNCH)
    market.submit(arrival.submission)
    standing = marketplace.submissions(opening)
    assert (standing.free, standing.held) == (2, 0)
    [submission] = standing.submissions
    assert (submission.id, submission.worker, submission.status) == (arrival.submission, arrival.worker, "submitted")
    marketplace.approve(submission)
    marketplace.approve(submission)
    [approved] = marketplace.submissions(opening).submissions
    assert approved.status == "approved"
    marketplace.approve(approved)
    reward = 150 + marketplace.fee(150, 3)
    assert market.paid() == reward
    grant = DirectPayment("bonus-1", approved, 25, "bonus", "Thank you for your care.")
    assert not marketplace.has_paid(grant)
    marketplace.bonus(grant)
    assert marketplace.has_paid(grant)
    marketplace.bonus(grant)
    assert market.paid() == reward + 25 + marketplace.fee(25, 3)
    assert not marketplace.has_paid(dataclasses.replace(grant, token="bonus-2"))


def test_a_returned_place_may_be_taken_again(market: MarketplaceCase) -> None:
    marketplace, opening = market.marketplace, market.marketplace.open(an_order())
    assert market.accept is not None
    arrival = marketplace.arrive(market.accept(opening))
    market.return_place(arrival.submission)
    standing = marketplace.submissions(opening)
    assert (standing.free, standing.held) == (3, 0)
    assert [one for one in standing.submissions if one.status in ("held", "submitted")] == []
