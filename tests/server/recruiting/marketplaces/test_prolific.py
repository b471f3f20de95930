"""The Prolific recruiter against the local Prolific: what the contract of all recruiters does not ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.identity.arrival import Arrival
from server.recruiting.marketplaces.base import (
    DirectPayment,
    MarketplaceError,
    OrderRefusedError,
    PostingOrder,
    ReportedSubmission,
    UnknownOutcomeError,
)
from server.recruiting.marketplaces.prolific import ProlificConfig, ProlificMarketplace, read_filters
from server.recruiting.marketplaces.prolific_api import WAITS, ProlificClient, explain
from server.recruiting.marketplaces.registry import make_marketplace
from server.simulation.fake_prolific import FakeProlific, TakenPlace
from server.simulation.marketplaces.money import total
from server.simulation.marketplaces.prolific_requests import Filter
from server.simulation.marketplaces.prolific_studies import FeeSchedule
from study.config import Study, StudyConfig
from study.config_sections import StudyInfo

URL, LAUNCH = "https://study.example.org/take", "0123abcd-1"
P = [f"{number:024x}" for number in range(1, 200)]


class StoppedClock:
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def a_study(**prolific: Any) -> Study:
    recruiter = {"kind": "prolific", "prolific": prolific}
    data: dict[str, Any] = {"study": StudyInfo(name="On Prolific"), "corpus": {"audio": "m"}, "recruiter": recruiter}
    return Study(Path("nowhere"), StudyConfig.model_validate(data))


def an_order(token: str = "places-1", places: int = 3, total: int | None = None, **more: Any) -> PostingOrder:
    given = {"reward": 150, "url": URL, "minutes": 4} | more
    return PostingOrder(token, LAUNCH, places, total or places, **given)


@pytest.fixture
def market() -> Iterator[FakeProlific]:
    with FakeProlific(balance="100.00", clock=StoppedClock()) as market:
        for who in P:
            market.participants.add(who)
        yield market


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def recruiter(market: FakeProlific, waits: list[float]) -> Iterator[ProlificMarketplace]:
    made = ProlificMarketplace(a_study(), endpoint=market.url, api=ProlificClient(market.url, waits.append))
    yield made
    made.disconnect()


def as_submission(held: TakenPlace, **changes: Any) -> ReportedSubmission:
    return dataclasses.replace(
        ReportedSubmission(held.submission_id, held.participant_id, held.study_id, "submitted"), **changes
    )


def a_grant(held: TakenPlace, cents: int = 25, kind: Any = "bonus", token: str = "bonus-1") -> DirectPayment:
    return DirectPayment(token, as_submission(held), cents, kind, "Thank you.")


def bonuses(market: FakeProlific, held: TakenPlace) -> list[Decimal]:
    return market.state.submissions[held.submission_id].bonuses


# ------------------------------------------------------------------ places


def test_all_orders_of_a_launch_are_one_study_that_waits_for_review(
    market: FakeProlific, recruiter: ProlificMarketplace
) -> None:
    opening = recruiter.open(an_order())
    assert recruiter.open(an_order("places-2", 2, 5)) == opening
    assert recruiter.open(an_order()) == opening, "an older order takes nothing back"
    [study] = market.state.studies.values()
    assert (study.places, study.status, study.given.reward) == (5, "ACTIVE", 150)
    actions = [action.action for code in study.given.completion_codes for action in code.actions]
    assert set(actions) == {"MANUALLY_REVIEW", "ADD_TO_PARTICIPANT_GROUP"}, "codes leak: none approves by itself"
    market.participants.add("f" * 24, country="0")
    with pytest.raises(Exception, match="no place"):
        market.take("f" * 24, opening)


def test_returns_and_time_outs_never_add_places(market: FakeProlific, recruiter: ProlificMarketplace) -> None:
    """The recruitment spiral: Prolific itself replaces each return, so asking for a place each time doubles it."""
    opening = recruiter.open(an_order())
    for who in P[:60:2]:
        market.return_(market.take(who, opening).submission_id)
        market.reserve(P[P.index(who) + 1], opening)
        market.advance(timedelta(minutes=10))
        standing = recruiter.submissions(opening)
        assert (standing.free, standing.held) == (3, 0)
        assert recruiter.open(an_order()) == opening
    assert market.state.studies[opening].places == 3
    assert len(standing.submissions) == 60
    assert {one.status for one in standing.submissions} == {"returned", "timed_out"}


def test_every_page_is_read(market: FakeProlific, recruiter: ProlificMarketplace) -> None:
    opening = recruiter.open(an_order(places=3))
    market.state.deposit = Decimal(10_000)
    recruiter.open(an_order("more", 97, 100))
    held = [market.take(who, opening) for who in P[:100]]
    standing = recruiter.submissions(opening)
    assert [one.id for one in standing.submissions] == [one.submission_id for one in held]
    for one in held[:20]:
        market.return_(one.submission_id)
    for who in P[100:120]:
        market.take(who, opening)
    assert len(recruiter.submissions(opening).submissions) == 120


@pytest.mark.parametrize("how", ["throttle", "fail", "fail_after", "timeout_before", "timeout_after", "twice"])
@pytest.mark.parametrize("operation", ["CreateStudy", "TransitionStudy", "ListStudies", "UpdateStudy"])
def test_whatever_goes_wrong_while_opening_one_study_is_open_in_the_end(
    market: FakeProlific, recruiter: ProlificMarketplace, operation: str, how: str
) -> None:
    if operation == "UpdateStudy":
        recruiter.open(an_order())
    market.fail(operation, 1, how)
    order = an_order("places-2", 2, 5) if operation == "UpdateStudy" else an_order()
    try:
        opening = recruiter.open(order)
    except MarketplaceError:
        opening = recruiter.open(order)
    published = [study for study in market.state.studies.values() if study.status != "UNPUBLISHED"]
    assert [(study.id, study.places) for study in published] == [(opening, order.total)]
    assert market.on_hold == 2 * order.total


def test_without_money_nothing_is_published_and_later_the_same_draft_is(
    market: FakeProlific, recruiter: ProlificMarketplace
) -> None:
    market.state.deposit = Decimal("5.99")
    with pytest.raises(MarketplaceError, match=r"^Prolific refused: Insufficient funds: 6.00 is needed and 5.99"):
        recruiter.open(an_order())
    assert market.on_hold == 0
    market.state.deposit = Decimal("6.00")
    assert [recruiter.open(an_order())] == list(market.state.studies)


def test_another_database_that_has_launched_the_study_is_in_the_way(
    market: FakeProlific, recruiter: ProlificMarketplace
) -> None:
    recruiter.open(an_order())
    theirs = dataclasses.replace(an_order(), launch="0123abcd-12")
    with pytest.raises(MarketplaceError, match="another database has launched this study on Prolific already"):
        recruiter.open(theirs)
    assert recruiter.open(dataclasses.replace(theirs, launch="4567abcd-12")) != recruiter.open(an_order())


def test_a_place_for_one_person(market: FakeProlific, recruiter: ProlificMarketplace) -> None:
    opening = recruiter.open(an_order("amends", 1, 1, only_for=P[5]))
    assert recruiter.open(an_order("amends", 1, 1, only_for=P[5])) == opening != recruiter.open(an_order())
    with pytest.raises(Exception, match="no place"):
        market.take(P[6], opening)
    market.take(P[5], opening)


def test_a_closed_study_takes_no_one_and_is_not_opened_again(
    market: FakeProlific, recruiter: ProlificMarketplace
) -> None:
    opening = recruiter.open(an_order())
    held = market.take(P[0], opening)
    market.fail("TransitionStudy", 1, "fail_after")
    recruiter.close(opening)
    assert market.state.studies[opening].status == "COMPLETED"
    assert recruiter.open(an_order()) == opening, "this order was placed before"
    with pytest.raises(OrderRefusedError, match="stopped on Prolific with 2 places left"):
        recruiter.open(an_order("places-2", 2, 5))
    market.complete(held.submission_id, recruiter.code("finished"))
    recruiter.approve(as_submission(held))
    assert total(market.ledger(), "reward") == Decimal("1.50")
    assert market.on_hold == 0


# ------------------------------------------------------------------ pay


def test_a_screen_out_is_paid_as_a_bonus_only_once_its_place_is_returned(
    market: FakeProlific, recruiter: ProlificMarketplace
) -> None:
    opening = recruiter.open(an_order())
    under_way, submitted, returned = (market.take(who, opening) for who in P[:3])
    market.complete(submitted.submission_id, "ANY")
    market.return_(returned.submission_id)
    for held, words in ((under_way, "is ACTIVE on Prolific"), (submitted, "paid once it is returned")):
        with pytest.raises(MarketplaceError, match=words):
            recruiter.bonus(a_grant(held, 150, "screen_out", held.submission_id))
    assert market.state.submissions[submitted.submission_id].return_requested
    market.return_(submitted.submission_id)
    for held in (submitted, returned):
        grant = a_grant(held, 150, "screen_out", held.submission_id)
        assert not recruiter.has_paid(grant)
        recruiter.bonus(grant)
        recruiter.bonus(grant)
        assert recruiter.has_paid(grant)
    assert [entry.amount for entry in market.ledger() if entry.kind == "bonus"] == [Decimal("1.50")] * 2


@pytest.mark.parametrize("how", ["throttle", "fail", "fail_after", "timeout_before", "timeout_after"])
@pytest.mark.parametrize("operation", ["GetSubmission", "SetUpBonuses", "PayBonuses"])
def test_a_bonus_in_doubt_is_asked_for_and_paid_once(
    market: FakeProlific, recruiter: ProlificMarketplace, operation: str, how: str
) -> None:
    held = market.take(P[0], recruiter.open(an_order()))
    market.state.bonus_delay = timedelta(minutes=3)
    market.fail(operation, 1, how)
    grant = a_grant(held)
    try:
        recruiter.bonus(grant)
    except UnknownOutcomeError:
        assert operation == "PayBonuses"
    market.advance(timedelta(minutes=recruiter.capabilities.settle_minutes))
    after_a_crash = ProlificMarketplace(a_study(), endpoint=market.url)
    if not after_a_crash.has_paid(grant):
        after_a_crash.bonus(grant)
    after_a_crash.disconnect()
    market.advance(timedelta(minutes=3))
    assert bonuses(market, held) == [Decimal("0.25")]


def test_bonuses_of_the_same_sum_are_told_apart_by_the_books(
    market: FakeProlific, recruiter: ProlificMarketplace
) -> None:
    held = market.take(P[0], recruiter.open(an_order()))
    recruiter.bonus(a_grant(held))
    after_a_crash = ProlificMarketplace(a_study(), endpoint=market.url)
    other = a_grant(held, token="partial-1", kind="partial")
    assert after_a_crash.has_paid(other), "a single payment does not say which it was"
    other = dataclasses.replace(other, same_payments=1)
    assert not after_a_crash.has_paid(other)
    after_a_crash.bonus(other)
    after_a_crash.disconnect()
    assert bonuses(market, held) == [Decimal("0.25")] * 2


@pytest.mark.parametrize("how", ["throttle", "fail", "fail_after", "timeout_before", "timeout_after"])
def test_approval_pays_once_whatever_goes_wrong(market: FakeProlific, recruiter: ProlificMarketplace, how: str) -> None:
    held = market.take(P[0], recruiter.open(an_order()))
    market.complete(held.submission_id, "LEAKED")
    market.fail("TransitionSubmission", 1, how)
    recruiter.approve(as_submission(held))
    assert total(market.ledger(), "reward") == Decimal("1.50")


def test_approval_waits_for_a_submission_that_is_just_coming(
    market: FakeProlific, recruiter: ProlificMarketplace, waits: list[float]
) -> None:
    held = market.take(P[0], recruiter.open(an_order()))
    waits_of = recruiter._api  # the clock of the retries is where the submission arrives
    waits_of._sleep = lambda seconds: market.complete(held.submission_id, "CODE")
    recruiter.approve(as_submission(held))
    assert total(market.ledger(), "reward") == Decimal("1.50")
    returned = market.take(P[1], held.study_id)
    market.return_(returned.submission_id)
    with pytest.raises(MarketplaceError, match=f"{returned.submission_id} is RETURNED on Prolific"):
        recruiter.approve(as_submission(returned))
    never = market.take(P[2], held.study_id)
    waits_of._sleep = waits.append
    with pytest.raises(MarketplaceError, match="is ACTIVE on Prolific"):
        recruiter.approve(as_submission(never))
    assert waits == list(WAITS[:-1])


# ------------------------------------------------------------------ listeners


def test_each_outcome_has_its_completion_code(market: FakeProlific) -> None:
    recruiter = make_marketplace(a_study())
    assert isinstance(recruiter, ProlificMarketplace)
    arrival = Arrival(P[0], P[1], P[2])
    for outcome in ("finished", "screened_out"):
        code = recruiter.code(outcome)
        link = recruiter.make_return_link(arrival, outcome, code)
        assert link.url == f"https://app.prolific.com/submissions/complete?cc={code}"
    assert recruiter.make_return_link(arrival, "left", "X").url == "https://app.prolific.com/studies"
    assert recruiter.code("finished") != recruiter.code("screened_out")
    rehearsed = make_marketplace(a_study(), endpoint=market.url).make_return_link(arrival, "finished", "X")
    assert rehearsed.url.startswith(market.worker_url)


# ------------------------------------------------------------------ the account


@pytest.mark.parametrize(
    ("fee", "tax"), [("academic", 0.0), ("academic", 20.0), ("corporate", 0.0), ("corporate", 19.6)]
)
@given(cents=st.integers(1, 100_000))
def test_fees_are_those_that_are_charged(fee: str, tax: float, cents: int) -> None:
    rate = Fraction(1, 3) if fee == "academic" else Fraction("0.428")
    tariff = FeeSchedule(rate, Fraction(str(tax)) / 100)
    charged = tariff.fee(Decimal(cents) / 100) + tariff.tax(Decimal(cents) / 100)
    exact = ProlificMarketplace(a_study(fee=fee, tax_percent=tax)).exact_fee(cents)
    assert abs(exact - Fraction(charged) * 100) <= Fraction(1, 10**6), "to a millionth of a cent"


def test_the_account_is_looked_at_before_anything_is_opened(
    market: FakeProlific, recruiter: ProlificMarketplace
) -> None:
    assert recruiter.account() == 10_000

    def look(**prolific: Any) -> None:
        made = ProlificMarketplace(a_study(**prolific), endpoint=market.url)
        try:
            made.account()
        finally:
            made.disconnect()

    with pytest.raises(MarketplaceError, match=r"pays in USD, and recruiter.prolific.currency in study.toml is GBP"):
        look(currency="GBP")
    with pytest.raises(MarketplaceError, match=r"charges 33.33 on 100.00, but study.toml expects 42.80"):
        look(fee="corporate")
    with pytest.raises(MarketplaceError, match="does not reach the workspace 0000"):
        look(workspace="0" * 24)
    market.refuse("suspended")
    with pytest.raises(MarketplaceError, match=r"does not allow this account .*Suspended"):
        recruiter.account()
    market.refuse("unauthorized")
    with pytest.raises(MarketplaceError, match="does not accept the token in PROLIFIC_TOKEN"):
        recruiter.account()


def test_nothing_is_opened_by_mistake(monkeypatch: pytest.MonkeyPatch, recruiter: ProlificMarketplace) -> None:
    with pytest.raises(MarketplaceError, match="no sandbox; --live"):
        make_marketplace(a_study()).open(an_order())
    for address in ("http://study.example.org/take", "http://localhost.example.org/take"):
        with pytest.raises(MarketplaceError, match="opens only https addresses"):
            recruiter.open(an_order(url=address))
    with pytest.raises(MarketplaceError, match="is not on this machine"):
        make_marketplace(a_study(), endpoint="https://api.prolific.com")
    for token in ("", " ", "line\nbreak"):
        monkeypatch.setenv("PROLIFIC_TOKEN", token)
        with pytest.raises(MarketplaceError, match="PROLIFIC_TOKEN contains no Prolific token"):
            make_marketplace(a_study(), live=True).account()


def test_a_marketplace_that_is_not_there(waits: list[float]) -> None:
    recruiter = ProlificMarketplace(a_study(), api=ProlificClient("http://127.0.0.1:9", waits.append))
    with pytest.raises(MarketplaceError, match="Prolific cannot be reached") as caught:
        recruiter.account()
    assert not isinstance(caught.value, UnknownOutcomeError)
    assert waits == list(WAITS)
    recruiter.disconnect()


def test_throttling_is_outlasted_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    replies = [
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(429),
        httpx.Response(200, json={"a": 1}),
    ]
    monkeypatch.setattr(httpx.Client, "request", lambda *_, **__: replies.pop(0))
    api = ProlificClient("http://127.0.0.1:9", waits.append)
    assert api.post("/studies/") == {"a": 1}
    assert waits == [7.0, WAITS[1]]
    replies[:] = [httpx.Response(429)] * 6
    with pytest.raises(MarketplaceError, match="too many requests"):
        api.post("/studies/")
    api.close()


def test_the_token_is_nowhere_to_be_seen(monkeypatch: pytest.MonkeyPatch, market: FakeProlific) -> None:
    monkeypatch.setenv("PROLIFIC_TOKEN", "s3cret-token")
    real = make_marketplace(a_study(), live=True)
    assert "s3cret" not in repr(real) + repr(vars(real))
    rehearsed = ProlificMarketplace(a_study(), endpoint=market.url)
    assert rehearsed.account() == 10_000, "a rehearsal uses the emulator's token, never the real one"
    rehearsed.disconnect()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"title": "Wrong", "detail": "This\nand that."}, "Wrong: This and that"),
        (
            {"title": "Wrong", "detail": {"reward": ["Too low.", "Odd."], "name": "?"}},
            "Wrong: reward: Too low., Odd.; name: ?",
        ),
        ({"title": "Wrong", "detail": ["a", "b"]}, "Wrong: a, b"),
        ({"detail": None}, "no reason was given"),
        ("text", "text"),
        ({"error": {"title": "Wrong", "detail": "That."}}, "Wrong: That"),
        (None, "no reason was given"),
    ],
)
def test_errors_are_told_in_one_line(error: Any, words: str) -> None:
    assert explain(error) == words


def test_filters_are_ones_that_prolific_takes() -> None:
    config = ProlificConfig(countries=["0", "1"], approved=50, exclude_studies=["a" * 24])
    filters = read_filters(config)
    assert [one["filter_id"] for one in filters] == [
        "current-country-of-residence",
        "fluent-languages",
        "previous_studies_blocklist",
        "approval_rate",
        "approval_numbers",
    ]
    assert read_filters(ProlificConfig(countries=[], languages=[], approved_percent=0)) == []
    assert all(Filter.model_validate(one) for one in filters)
