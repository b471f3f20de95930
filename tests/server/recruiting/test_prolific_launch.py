"""A launch on the local Prolific that breaks off everywhere: bonuses there bear no token, show late, and pay twice.

The points where a program may die are those of test_crashes; what is different is what must hold at Prolific.
`make soak` breaks a launch of the paper's size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from embeddings.errors import RootnoteError
from server.db.models import Assignment
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault
from server.payments import ledger as payments
from server.payments.ledger import OverBudgetError
from server.privacy.erasure import is_settled
from server.recruiting import due as recruiting_due
from server.recruiting import grants, launch, sync
from server.recruiting.launch import RecruitingContext
from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.marketplaces.prolific import ProlificMarketplace
from server.recruiting.marketplaces.prolific_api import ProlificApiError
from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplaces.money import total
from server.simulation.marketplaces.prolific_studies import FakeProlificError
from study.config import load_study
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.recruiting.mturk_study import KEY, NO_PRESCREEN, URL, Turk
from tests.server.recruiting.test_crashes import LEFT_OPEN, LISTENERS, Breaker, Crash, Show

PROLIFIC = '[recruiter]\nkind = "prolific"\n'
UNIT = 200
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@dataclass(frozen=True)
class Taken:
    """A submission under the names that a worker of any marketplace goes by in these tests."""

    assignment_id: str
    external_url: str


def participant(worker: str) -> str:
    """The id at Prolific of somebody whom these tests call so."""
    return f"{int.from_bytes(worker.encode()):024x}"


@dataclass
class House(Turk):
    """A study at the local Prolific; people are P1, P2, … by 24 digits."""

    market: Any

    def accept(self, worker: str) -> Taken | None:  # type: ignore[override]
        who = participant(worker)
        if who not in {one.id for one in self.market.participants}:
            self.market.participants.add(who)
        for study in list(self.market.state.studies):
            with contextlib.suppress(FakeProlificError):
                held = self.market.take(who, study)
                return Taken(held.submission_id, held.external_url)
        return None


@pytest.fixture
def make_house(make_site: Callable[..., Site], clock: FakeClock) -> Iterator[Callable[..., House]]:
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> House:
            market = stack.enter_context(FakeProlific("10000.00", clock=clock))
            market.state.bonus_delay = timedelta(minutes=3)
            vault = Vault([KEY])
            settings = {"vault": vault, "market_url": market.url, "rehearsal": True}
            toml = PROLIFIC + NO_PRESCREEN + options.pop("toml", "")
            if "[pay]" not in toml:  # less than the reward, so that who cannot hear is screened out
                toml += "[pay]\nwithout_sound_usd = 1.40\n"
            site = make_site(toml=toml, settings=settings, **options)
            recruiter = ProlificMarketplace(load_study(site.study.folder), endpoint=market.url)
            stack.callback(recruiter.disconnect)
            engine = site.app.extensions["rootnote"].engine
            config = load_study(site.study.folder).config
            office = RecruitingContext(engine, recruiter, config, TokenSigner(SECRET), vault, f"{URL}/take", clock)
            return House(site, market, office, clock)

        yield make


class ProlificShow(Show):
    """Those who finish and submit, one who leaves, one who hears nothing, one whose time runs out at the end."""

    turk: Any

    def run(self) -> None:
        turk = self.turk
        self.command(lambda: turk.launch())
        for number in range(self.listeners - 1):
            self.take(f"A{number}", submits=True)
        self.take("ALEFT", "leave", submits=False)
        self.take("AMUTE", "technical", submits=True)
        self.command(turk.sync)
        self.command(turk.pay)
        self.take("ALAST", submits=False)
        for act in (turk.sync, turk.pay, self.bonus, lambda: launch.stop(turk.office, "test"), turk.sync):
            self.command(act)
        for _ in range(3):  # what is in doubt is asked for once it must show
            turk.wait(20)
            self.command(turk.sync)

    def take(self, worker: str, ends: str = "finish", *, submits: bool) -> None:
        taken = self.turk.accept(worker)
        assert taken is not None, f"no place for {worker}"
        self.listen(taken, ends)
        if submits:
            self.turk.market.complete(taken.assignment_id, "ANY")
        elif ends == "leave":
            self.turk.market.return_(taken.assignment_id)
        else:
            self.turk.market.abandon(taken.assignment_id)

    def _new_recruiter(self) -> Any:
        inner: Any = self.healthy.recruiter
        inner._paid.clear()  # what a program remembers dies with it
        return inner

    def check(self) -> None:
        """No double payment, no unpaid finisher, no study left open, no lost answer; the books agree to the cent."""
        turk, ledger = self.turk, self.turk.market.ledger()
        paid = [(entry.kind, entry.amount) for entry in ledger if entry.kind not in ("fee", "tax")]
        assert sorted(paid) == sorted(
            [
                *[("reward", Decimal("1.50"))] * (self.listeners - 1),
                ("screen-out", Decimal("1.40")),
                ("bonus", Decimal("1.50")),
                ("bonus", Decimal("0.25")),
            ]
        )
        assert len({entry.assignment for entry in ledger if entry.kind == "reward"}) == self.listeners - 1
        assert turk.cost == turk.paid == self.listeners * UNIT + 187 + 33  # $1.40 and its fee; 25 cents and its fee
        states = turk.states()
        assert states.count("paid") == self.listeners
        assert sorted(set(states)) == ["paid", "technical", "withdrawn"]
        assert turk.site.query("SELECT count(*) FROM responses") == [(self.listeners,)]
        published = [study for study in turk.market.state.studies.values() if study.status != "UNPUBLISHED"]
        assert [(study.status, study.places) for study in published] == [("COMPLETED", self.listeners + 1)]
        assert turk.market.on_hold == 0
        assert not any(turk.site.query(f"SELECT * FROM {sql}") for sql in LEFT_OPEN)


def a_show(make: Callable[..., House], breaker: Breaker, listeners: int = LISTENERS) -> ProlificShow:
    return ProlificShow(make(listeners=listeners, trials=1), breaker, listeners)


@on_sqlite
def test_a_launch_that_breaks_nowhere(make_house: Callable[..., House]) -> None:
    show = a_show(make_house, Breaker(at=0))
    show.run()
    show.check()


@pytest.mark.slow
@on_sqlite
def test_a_launch_that_breaks_off_at_each_point_once(make_house: Callable[..., House]) -> None:
    breaker = Breaker()
    show = a_show(make_house, breaker)
    show.run()
    show.check()
    assert breaker.crashes == len(set(breaker.points)) >= 12 * LISTENERS
    print(f"{LISTENERS} listeners, {breaker.crashes} crashes")


@on_sqlite
def test_who_could_not_submit_is_paid_once_though_the_program_dies_after_each_sending(
    make_house: Callable[..., House],
) -> None:
    """The payment shows three minutes later; asking sooner would find nothing, and pay again."""
    house = make_house(listeners=1, trials=1)
    show = ProlificShow(house, Breaker(), 1)
    house.launch()
    taken = house.accept("ALAST")
    assert taken is not None
    show.listen(taken, "finish")  # type: ignore[arg-type]
    house.market.abandon(taken.assignment_id)
    house.sync()
    market = house.market
    market.fail("PayBonuses", 1, "fail")  # not paid; but who knows
    with pytest.raises(MarketplaceError):
        house.pay()
    house.wait(16)
    recruiter: Any = house.office.recruiter
    sent = recruiter.bonus

    def die_after(grant: Any) -> None:
        sent(grant)
        raise Crash

    recruiter.bonus = die_after
    with pytest.raises(Crash):
        house.sync()
    recruiter.bonus = sent
    recruiter._paid.clear()
    house.wait(1)
    house.sync()
    house.pay()
    assert total(market.ledger(), "bonus") == 0, "it is on its way"
    house.wait(20)
    house.sync()
    assert total(market.ledger(), "bonus") == Decimal("1.50")
    assert house.cost == house.paid == UNIT


@on_sqlite
def test_a_refused_screen_out_that_a_person_approves_is_paid_and_booked_once(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=1, trials=1)
    show = ProlificShow(house, Breaker(), 1)
    house.launch()
    taken = house.accept("AMUTE")
    assert taken is not None
    show.listen(taken, "technical")  # type: ignore[arg-type]
    house.wait(30)  # $1.50 for half an hour is less than Prolific lets anybody be paid
    house.market.complete(taken.assignment_id, "ANY")
    house.sync()
    with pytest.raises(RootnoteError, match="below the minimum for the median time"):
        house.pay()
    house.wait(16)
    house.sync()
    assert any("A payment written down earlier was not made" in line for line in house.told)
    house.market.state.approve(house.market.state.submission(taken.assignment_id))
    house.sync()
    house.wait(20)
    house.sync()
    assert house.cost == house.paid == UNIT
    with house.office.reading() as session:
        assert payments.pending(session) == []
        assert recruiting_due.all_due(session, house.office) == []


@on_sqlite
def test_who_leaves_is_asked_to_return_and_who_finishes_to_come_back(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=2, trials=1)
    house.launch()
    left = house.worker("ALEFT").agree()
    left.go("leave", confirm="yes")
    assert left.step == "withdrawn" and "return your place" in left.html and "One more step" not in left.html
    assert left.find(r'href="([^"]+)" data-back').endswith("/studies")
    done = house.worker("ADONE").agree()
    done.go("instructions")
    done.listen().finish()
    assert done.step == "done" and "One more step" in done.html
    code = house.office.recruiter.code("finished")  # type: ignore[attr-defined]
    assert done.find(r'href="([^"]+)" data-back').endswith(f"/submissions/complete?cc={code}")


# ------------------------------------------------------------------ out of order, and under false names


def settled(house: House) -> bool:
    """Whether nothing is in doubt or due any more, and the books agree with the marketplace to the cent."""
    with house.office.reading() as session:
        open_ = [*payments.pending(session), *recruiting_due.all_due(session, house.office)]
    return not open_ and house.cost == house.paid


def until_it_shows(house: House) -> None:
    for _ in range(2):
        house.pay()
        house.wait(20)
        house.sync()


@on_sqlite
def test_one_submission_under_many_names_is_paid_once(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=4, trials=1)
    show = ProlificShow(house, Breaker(), 4)
    house.launch()
    taken = house.accept("AREAL")
    assert taken is not None
    own = participant("AREAL")
    for digit, ends in (("1", "finish"), ("2", "finish"), ("3", "technical")):
        forged = Taken(taken.assignment_id, taken.external_url.replace(own, 24 * digit))
        assert forged != taken
        show.listen(forged, ends)  # type: ignore[arg-type]
        house.pay()  # while the place is held, too
    show.listen(taken, "finish")  # type: ignore[arg-type]
    house.market.complete(taken.assignment_id, "ANY")
    house.wait(5)
    house.sync()
    until_it_shows(house)
    assert [entry.kind for entry in house.market.ledger() if entry.kind not in ("fee", "tax")] == ["reward"]
    assert house.cost == UNIT and settled(house)


@on_sqlite
def test_a_submission_that_prolific_does_not_know_is_not_paid(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=1, trials=1)
    house.launch()
    taken = house.accept("AREAL")
    assert taken is not None
    address = taken.external_url.replace(participant("AREAL"), "e" * 24)
    forged = Taken("f" * 24, address.replace(taken.assignment_id, "f" * 24))
    ProlificShow(house, Breaker(), 1).listen(forged, "finish")  # type: ignore[arg-type]
    house.market.return_(taken.assignment_id)
    house.wait(5)
    house.sync()
    until_it_shows(house)
    assert house.cost == 0 and settled(house)


@on_sqlite
def test_who_was_approved_midway_and_finishes_is_paid_once(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=1, trials=1)
    house.launch()
    walker = house.worker("AMIDWAY").agree()
    walker.go("instructions")
    house.market.complete(walker.accepted.assignment_id, "ANY")
    house.market.state.approve(house.market.state.submission(walker.accepted.assignment_id))
    house.sync()
    walker.reload().listen().finish()
    assert walker.step == "done"
    house.sync()
    until_it_shows(house)
    assert house.cost == UNIT and settled(house)


@on_sqlite
def test_who_was_paid_for_leaving_does_not_go_on(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=1, trials=1, toml="[pay]\nwithdrawn_usd = 0.50\nwithout_sound_usd = 1.40\n")
    house.launch()
    walker = house.worker("ALEFT").agree()
    house.market.return_(walker.accepted.assignment_id)
    house.wait(5)
    house.sync()
    house.pay()
    assert house.states() == ["returned"]
    again = house.arrive(walker.accepted)
    if again.step == "consent":
        again.agree()
    assert again.step not in ("instructions", "trial")
    until_it_shows(house)
    assert house.cost == 50 + 17 and settled(house)


def finish_and_give_back_after_a_vain_approval(house: House, listeners: int) -> None:
    taken = house.accept("AREAL")
    assert taken is not None
    ProlificShow(house, Breaker(), listeners).listen(taken, "finish")  # type: ignore[arg-type]
    house.market.complete(taken.assignment_id, "ANY")
    recruiter: Any = house.office.recruiter
    approve = recruiter.approve

    def fails(submission: object) -> None:
        raise MarketplaceError("no answer")

    recruiter.approve = fails
    with pytest.raises(MarketplaceError):
        house.sync()
    recruiter.approve = approve
    house.market.return_(taken.assignment_id)
    house.wait(5)
    house.sync()


@on_sqlite
def test_an_approval_that_came_to_nothing_is_paid_as_a_bonus_when_the_place_was_given_back(
    make_house: Callable[..., House],
) -> None:
    house = make_house(listeners=1, trials=1)
    house.launch()
    finish_and_give_back_after_a_vain_approval(house, 1)
    until_it_shows(house)
    assert total(house.market.ledger(), "bonus") == Decimal("1.50")
    assert house.cost == UNIT and settled(house)


@on_sqlite
def test_who_was_paid_a_bonus_and_is_approved_afterwards_stops_nothing(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=2, trials=1)
    show = ProlificShow(house, Breaker(), 2)
    house.launch()
    taken = house.accept("ALATE")
    assert taken is not None
    show.listen(taken, "finish")  # type: ignore[arg-type]
    house.market.abandon(taken.assignment_id)
    house.wait(5)
    house.sync()
    until_it_shows(house)
    house.market.complete(taken.assignment_id, "ANY")
    house.market.state.approve(house.market.state.submission(taken.assignment_id))
    other = house.accept("AOTHER")
    assert other is not None
    show.listen(other, "finish")  # type: ignore[arg-type]
    house.market.complete(other.assignment_id, "ANY")
    house.sync()
    until_it_shows(house)
    kinds = [row[0] for row in house.site.query("SELECT kind FROM payments ORDER BY id")]
    assert kinds == ["reward", "paid_again", "reward"]
    assert house.cost == 3 * UNIT and settled(house)
    # A bonus that is in doubt comes on top of all that.
    [(assignment, submission)] = house.site.query("SELECT assignment_id, submission_id FROM payments WHERE id = 1")
    house.market.fail("PayBonuses", 1, "fail")
    with pytest.raises(MarketplaceError):
        grants.pay_directly(house.office, assignment, "bonus", 25, "Thank you.", submission)
    house.wait(20)
    house.sync()
    until_it_shows(house)
    assert total(house.market.ledger(), "bonus") == Decimal("1.75")
    assert settled(house)


@on_sqlite
def test_what_a_person_rejected_is_not_paid(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=1, trials=1)
    house.launch()
    taken = house.accept("AREAL")
    assert taken is not None
    ProlificShow(house, Breaker(), 1).listen(taken, "finish")  # type: ignore[arg-type]
    house.market.complete(taken.assignment_id, "ANY")
    sync.synchronize(house.office, approve=False)
    house.market.state.reject(house.market.state.submission(taken.assignment_id))
    house.sync()
    until_it_shows(house)
    assert house.cost == 0 and settled(house)
    with house.office.reading() as session:
        [who] = session.scalars(select(Assignment))
        assert is_settled(session, who, house.office.config.pay), "who they are may go"


@on_sqlite
def test_who_is_approved_while_a_bonus_is_in_doubt_is_paid_once(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=2, trials=1)
    house.launch()
    taken = house.accept("ALATE")
    assert taken is not None
    ProlificShow(house, Breaker(), 2).listen(taken, "finish")  # type: ignore[arg-type]
    house.market.abandon(taken.assignment_id)
    house.wait(5)
    house.sync()
    house.market.fail("PayBonuses", 1, "fail")
    with pytest.raises(MarketplaceError):
        house.pay()
    house.market.complete(taken.assignment_id, "ANY")
    house.market.state.approve(house.market.state.submission(taken.assignment_id))
    house.sync()
    house.wait(20)
    house.sync()
    until_it_shows(house)
    assert house.site.query("SELECT kind, state FROM payments") == [("reward", "paid")]
    assert house.states() == ["paid"]
    assert house.cost == UNIT and settled(house)


@on_sqlite
def test_where_prolific_does_not_know_us_nothing_is_decided(make_house: Callable[..., House]) -> None:
    """A token of another workspace finds no submission, and no study either."""
    house = make_house(listeners=1, trials=1)
    house.launch()
    taken = house.accept("ALATE")
    assert taken is not None
    ProlificShow(house, Breaker(), 1).listen(taken, "finish")  # type: ignore[arg-type]
    house.market.abandon(taken.assignment_id)
    house.wait(5)
    house.sync()
    with house.office.reading() as session:
        [due] = recruiting_due.all_due(session, house.office)
    recruiter: Any = house.office.recruiter
    api, recruiter._api = recruiter._api, Stranger()
    with pytest.raises(ProlificApiError):
        grants.pay_directly(house.office, due.assignment, due.kind, due.cents, "", due.submission)
    recruiter._api = api
    house.wait(20)
    house.sync()
    until_it_shows(house)
    assert house.cost == UNIT and settled(house)


class Stranger:
    """An API to which we are nobody."""

    def get(self, path: str, **_: Any) -> Any:
        raise ProlificApiError("Prolific: not found", 404)


@on_sqlite
def test_an_approval_that_came_to_nothing_is_not_paid_beyond_the_budget(make_house: Callable[..., House]) -> None:
    house = make_house(listeners=2, trials=1)
    house.launch(budget=2 * UNIT)
    finish_and_give_back_after_a_vain_approval(house, 2)
    with pytest.raises(OverBudgetError):
        house.pay()
    with house.office.reading() as session:
        assert payments.committed(session) <= 2 * UNIT
    assert house.cost == 0
