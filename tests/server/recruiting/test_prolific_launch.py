"""A launch on the local Prolific that breaks off everywhere: bonuses there bear no token, show late, and pay twice.

The points where a program may die are those of test_crashes; what is different is what must hold at Prolific.
ROOTNOTE_CRASH_LISTENERS=90 breaks a launch of the paper's size.
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
from server.recruiting import direct_payments, launch, sync
from server.recruiting import due as due_payments
from server.recruiting.context import RecruitingContext
from server.recruiting.marketplaces.base import MarketplaceError
from server.recruiting.marketplaces.prolific import ProlificMarketplace
from server.recruiting.marketplaces.prolific_api import ProlificApiError
from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplaces.money import total
from server.simulation.marketplaces.prolific_studies import FakeProlificError
from study.config import load_study
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.recruiting.mturk_study import KEY, NO_PRESCREEN, URL, MTurkStudy
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
class ProlificStudy(MTurkStudy):
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


MakeProlific = Callable[..., ProlificStudy]


@pytest.fixture
def make_prolific(make_site: Callable[..., Site], clock: FakeClock) -> Iterator[Callable[..., ProlificStudy]]:
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> ProlificStudy:
            market = stack.enter_context(FakeProlific("10000.00", clock=clock))
            market.state.bonus_delay = timedelta(minutes=3)
            vault = Vault([KEY])
            settings = {"vault": vault, "market_url": market.url, "rehearsal": True}
            toml = PROLIFIC + NO_PRESCREEN + options.pop("toml", "")
            if "[pay]" not in toml:  # less than the reward, so that who cannot hear is screened out
                toml += "[pay]\nwithout_sound_usd = 1.40\n"
            site = make_site(toml=toml, settings=settings, **options)
            marketplace = ProlificMarketplace(load_study(site.study.folder), endpoint=market.url)
            stack.callback(marketplace.disconnect)
            engine = site.app.extensions["rootnote.engine"]
            config = load_study(site.study.folder).config
            context = RecruitingContext(engine, marketplace, config, TokenSigner(SECRET), vault, f"{URL}/take", clock)
            return ProlificStudy(site, market, context, clock)

        yield make


class ProlificShow(Show):
    """Those who finish and submit, one who leaves, one who hears nothing, one whose time runs out at the end."""

    mturk: Any

    def run(self) -> None:
        mturk = self.mturk
        self.command(lambda: mturk.launch())
        for number in range(self.listeners - 1):
            self.take(f"A{number}", submits=True)
        self.take("ALEFT", "leave", submits=False)
        self.take("AMUTE", "technical", submits=True)
        self.command(mturk.sync)
        self.command(mturk.pay)
        self.take("ALAST", submits=False)
        for act in (mturk.sync, mturk.pay, self.bonus, lambda: launch.stop(mturk.context, "test"), mturk.sync):
            self.command(act)
        for _ in range(3):  # what is in doubt is asked for once it must show
            mturk.wait(20)
            self.command(mturk.sync)

    def take(self, worker: str, ends: str = "finish", *, submits: bool) -> None:
        taken = self.mturk.accept(worker)
        assert taken is not None, f"no place for {worker}"
        self.listen(taken, ends)
        if submits:
            self.mturk.market.complete(taken.assignment_id, "ANY")
        elif ends == "leave":
            self.mturk.market.return_(taken.assignment_id)
        else:
            self.mturk.market.abandon(taken.assignment_id)

    def _new_marketplace(self) -> Any:
        inner: Any = self.healthy.marketplace
        inner._paid.clear()  # what a program remembers dies with it
        return inner

    def check(self) -> None:
        """No double payment, no unpaid finisher, no study left open, no lost answer; the ledgers agree to the cent."""
        mturk, ledger = self.mturk, self.mturk.market.ledger()
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
        assert mturk.cost == mturk.paid == self.listeners * UNIT + 187 + 33  # $1.40 and its fee; 25 cents and its fee
        states = mturk.states()
        assert states.count("paid") == self.listeners
        assert sorted(set(states)) == ["paid", "technical", "withdrawn"]
        assert mturk.site.query("SELECT count(*) FROM responses") == [(self.listeners,)]
        published = [study for study in mturk.market.state.studies.values() if study.status != "UNPUBLISHED"]
        assert [(study.status, study.places) for study in published] == [("COMPLETED", self.listeners + 1)]
        assert mturk.market.on_hold == 0
        assert not any(mturk.site.query(f"SELECT * FROM {sql}") for sql in LEFT_OPEN)


def a_show(make: Callable[..., ProlificStudy], breaker: Breaker, listeners: int = LISTENERS) -> ProlificShow:
    return ProlificShow(make(listeners=listeners, trials=1), breaker, listeners)


@on_sqlite
def test_a_launch_that_breaks_nowhere(make_prolific: MakeProlific) -> None:
    show = a_show(make_prolific, Breaker(at=0))
    show.run()
    show.check()


@pytest.mark.slow
@on_sqlite
def test_a_launch_that_breaks_off_at_each_point_once(make_prolific: MakeProlific) -> None:
    breaker = Breaker()
    show = a_show(make_prolific, breaker)
    show.run()
    show.check()
    assert breaker.crashes == len(set(breaker.points)) >= 12 * LISTENERS
    print(f"{LISTENERS} listeners, {breaker.crashes} crashes")


@on_sqlite
def test_who_could_not_submit_is_paid_once_though_the_program_dies_after_each_sending(
    make_prolific: MakeProlific,
) -> None:
    """The payment shows three minutes later; asking sooner would find nothing, and pay again."""
    prolific = make_prolific(listeners=1, trials=1)
    show = ProlificShow(prolific, Breaker(), 1)
    prolific.launch()
    taken = prolific.accept("ALAST")
    assert taken is not None
    show.listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.abandon(taken.assignment_id)
    prolific.sync()
    market = prolific.market
    market.fail("PayBonuses", 1, "fail")  # not paid; but who knows
    with pytest.raises(MarketplaceError):
        prolific.pay()
    prolific.wait(16)
    marketplace: Any = prolific.context.marketplace
    sent = marketplace.bonus

    def die_after(grant: Any) -> None:
        sent(grant)
        raise Crash

    marketplace.bonus = die_after
    with pytest.raises(Crash):
        prolific.sync()
    marketplace.bonus = sent
    marketplace._paid.clear()
    prolific.wait(1)
    prolific.sync()
    prolific.pay()
    assert total(market.ledger(), "bonus") == 0, "it is on its way"
    prolific.wait(20)
    prolific.sync()
    assert total(market.ledger(), "bonus") == Decimal("1.50")
    assert prolific.cost == prolific.paid == UNIT


@on_sqlite
def test_a_refused_screen_out_that_a_person_approves_is_paid_and_recorded_once(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    show = ProlificShow(prolific, Breaker(), 1)
    prolific.launch()
    taken = prolific.accept("AMUTE")
    assert taken is not None
    show.listen(taken, "technical")  # type: ignore[arg-type]
    prolific.wait(30)  # $1.50 for half an hour is less than Prolific lets anybody be paid
    prolific.market.complete(taken.assignment_id, "ANY")
    prolific.sync()
    with pytest.raises(RootnoteError, match="below the minimum for the median time"):
        prolific.pay()
    prolific.wait(16)
    prolific.sync()
    assert any("A payment recorded earlier was not made" in line for line in prolific.reported)
    prolific.market.state.approve(prolific.market.state.submission(taken.assignment_id))
    prolific.sync()
    prolific.wait(20)
    prolific.sync()
    assert prolific.cost == prolific.paid == UNIT
    with prolific.context.reading() as session:
        assert payments.pending(session) == []
        assert due_payments.all_due(session, prolific.context) == []


@on_sqlite
def test_who_leaves_is_asked_to_return_and_who_finishes_to_come_back(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch()
    left = prolific.worker("ALEFT").agree()
    left.go("leave", confirm="yes")
    assert left.step == "withdrawn" and "return your place" in left.html and "One more step" not in left.html
    assert left.find(r'href="([^"]+)" data-back').endswith("/studies")
    done = prolific.worker("ADONE").agree()
    done.go("instructions")
    done.listen().finish()
    assert done.step == "done" and "One more step" in done.html
    code = prolific.context.marketplace.code("finished")  # type: ignore[attr-defined]
    assert done.find(r'href="([^"]+)" data-back').endswith(f"/submissions/complete?cc={code}")


# ------------------------------------------------------------------ out of order, and under false names


def settled(prolific: ProlificStudy) -> bool:
    """Whether nothing is in unknown state or due, and our ledger agrees with the marketplace's to the cent."""
    with prolific.context.reading() as session:
        open_ = [*payments.pending(session), *due_payments.all_due(session, prolific.context)]
    return not open_ and prolific.cost == prolific.paid


def until_it_shows(prolific: ProlificStudy) -> None:
    for _ in range(2):
        prolific.pay()
        prolific.wait(20)
        prolific.sync()


@on_sqlite
def test_one_submission_under_many_names_is_paid_once(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=4, trials=1)
    show = ProlificShow(prolific, Breaker(), 4)
    prolific.launch()
    taken = prolific.accept("AREAL")
    assert taken is not None
    own = participant("AREAL")
    for digit, ends in (("1", "finish"), ("2", "finish"), ("3", "technical")):
        forged = Taken(taken.assignment_id, taken.external_url.replace(own, 24 * digit))
        assert forged != taken
        show.listen(forged, ends)  # type: ignore[arg-type]
        prolific.pay()  # while the place is held, too
    show.listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.complete(taken.assignment_id, "ANY")
    prolific.wait(5)
    prolific.sync()
    until_it_shows(prolific)
    assert [entry.kind for entry in prolific.market.ledger() if entry.kind not in ("fee", "tax")] == ["reward"]
    assert prolific.cost == UNIT and settled(prolific)


@on_sqlite
def test_a_submission_that_prolific_does_not_know_is_not_paid(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    taken = prolific.accept("AREAL")
    assert taken is not None
    address = taken.external_url.replace(participant("AREAL"), "e" * 24)
    forged = Taken("f" * 24, address.replace(taken.assignment_id, "f" * 24))
    ProlificShow(prolific, Breaker(), 1).listen(forged, "finish")  # type: ignore[arg-type]
    prolific.market.return_(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.cost == 0 and settled(prolific)


@on_sqlite
def test_who_was_approved_midway_and_finishes_is_paid_once(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    walker = prolific.worker("AMIDWAY").agree()
    walker.go("instructions")
    prolific.market.complete(walker.accepted.assignment_id, "ANY")
    prolific.market.state.approve(prolific.market.state.submission(walker.accepted.assignment_id))
    prolific.sync()
    walker.reload().listen().finish()
    assert walker.step == "done"
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.cost == UNIT and settled(prolific)


@on_sqlite
def test_who_was_paid_for_leaving_does_not_go_on(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1, toml="[pay]\nwithdrawn_usd = 0.50\nwithout_sound_usd = 1.40\n")
    prolific.launch()
    walker = prolific.worker("ALEFT").agree()
    prolific.market.return_(walker.accepted.assignment_id)
    prolific.wait(5)
    prolific.sync()
    prolific.pay()
    assert prolific.states() == ["returned"]
    again = prolific.arrive(walker.accepted)
    if again.step == "consent":
        again.agree()
    assert again.step not in ("instructions", "trial")
    until_it_shows(prolific)
    assert prolific.cost == 50 + 17 and settled(prolific)


def finish_and_return_after_a_failed_approval(prolific: ProlificStudy, listeners: int) -> None:
    taken = prolific.accept("AREAL")
    assert taken is not None
    ProlificShow(prolific, Breaker(), listeners).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.complete(taken.assignment_id, "ANY")
    marketplace: Any = prolific.context.marketplace
    approve = marketplace.approve

    def fails(submission: object) -> None:
        raise MarketplaceError("no answer")

    marketplace.approve = fails
    with pytest.raises(MarketplaceError):
        prolific.sync()
    marketplace.approve = approve
    prolific.market.return_(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()


@on_sqlite
def test_an_approval_that_came_to_nothing_is_paid_as_a_bonus_when_the_place_was_given_back(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    finish_and_return_after_a_failed_approval(prolific, 1)
    until_it_shows(prolific)
    assert total(prolific.market.ledger(), "bonus") == Decimal("1.50")
    assert prolific.cost == UNIT and settled(prolific)


@on_sqlite
def test_who_was_paid_a_bonus_and_is_approved_afterwards_stops_nothing(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    show = ProlificShow(prolific, Breaker(), 2)
    prolific.launch()
    taken = prolific.accept("ALATE")
    assert taken is not None
    show.listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.abandon(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()
    until_it_shows(prolific)
    prolific.market.complete(taken.assignment_id, "ANY")
    prolific.market.state.approve(prolific.market.state.submission(taken.assignment_id))
    other = prolific.accept("AOTHER")
    assert other is not None
    show.listen(other, "finish")  # type: ignore[arg-type]
    prolific.market.complete(other.assignment_id, "ANY")
    prolific.sync()
    until_it_shows(prolific)
    kinds = [row[0] for row in prolific.site.query("SELECT kind FROM payments ORDER BY id")]
    assert kinds == ["reward", "paid_again", "reward"]
    assert prolific.cost == 3 * UNIT and settled(prolific)
    # A bonus that is in doubt comes on top of all that.
    [(assignment, submission)] = prolific.site.query("SELECT assignment_id, submission_id FROM payments WHERE id = 1")
    prolific.market.fail("PayBonuses", 1, "fail")
    with pytest.raises(MarketplaceError):
        direct_payments.pay_directly(prolific.context, assignment, "bonus", 25, "Thank you.", submission)
    prolific.wait(20)
    prolific.sync()
    until_it_shows(prolific)
    assert total(prolific.market.ledger(), "bonus") == Decimal("1.75")
    assert settled(prolific)


@on_sqlite
def test_what_a_person_rejected_is_not_paid(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    taken = prolific.accept("AREAL")
    assert taken is not None
    ProlificShow(prolific, Breaker(), 1).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.complete(taken.assignment_id, "ANY")
    sync.synchronize(prolific.context, approve=False)
    prolific.market.state.reject(prolific.market.state.submission(taken.assignment_id))
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.cost == 0 and settled(prolific)
    with prolific.context.reading() as session:
        [who] = session.scalars(select(Assignment))
        assert is_settled(session, who, prolific.context.config.pay), "who they are may go"


@on_sqlite
def test_who_is_approved_while_a_bonus_is_in_doubt_is_paid_once(make_prolific: MakeProlific) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch()
    taken = prolific.accept("ALATE")
    assert taken is not None
    ProlificShow(prolific, Breaker(), 2).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.abandon(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()
    prolific.market.fail("PayBonuses", 1, "fail")
    with pytest.raises(MarketplaceError):
        prolific.pay()
    prolific.market.complete(taken.assignment_id, "ANY")
    prolific.market.state.approve(prolific.market.state.submission(taken.assignment_id))
    prolific.sync()
    prolific.wait(20)
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.site.query("SELECT kind, state FROM payments") == [("reward", "paid")]
    assert prolific.states() == ["paid"]
    assert prolific.cost == UNIT and settled(prolific)


@on_sqlite
def test_where_prolific_does_not_know_us_nothing_is_decided(make_prolific: MakeProlific) -> None:
    """A token of another workspace finds no submission, and no study either."""
    prolific = make_prolific(listeners=1, trials=1)
    prolific.launch()
    taken = prolific.accept("ALATE")
    assert taken is not None
    ProlificShow(prolific, Breaker(), 1).listen(taken, "finish")  # type: ignore[arg-type]
    prolific.market.abandon(taken.assignment_id)
    prolific.wait(5)
    prolific.sync()
    with prolific.context.reading() as session:
        [due] = due_payments.all_due(session, prolific.context)
    marketplace: Any = prolific.context.marketplace
    api, marketplace._api = marketplace._api, Stranger()
    with pytest.raises(ProlificApiError):
        direct_payments.pay_directly(prolific.context, due.assignment, due.kind, due.cents, "", due.submission)
    marketplace._api = api
    prolific.wait(20)
    prolific.sync()
    until_it_shows(prolific)
    assert prolific.cost == UNIT and settled(prolific)


class Stranger:
    """An API that does not know us."""

    def get(self, path: str, **_: Any) -> Any:
        raise ProlificApiError("Prolific: not found", 404)


@on_sqlite
def test_an_approval_that_came_to_nothing_is_not_paid_beyond_the_budget(
    make_prolific: MakeProlific,
) -> None:
    prolific = make_prolific(listeners=2, trials=1)
    prolific.launch(budget=2 * UNIT)
    finish_and_return_after_a_failed_approval(prolific, 2)
    with pytest.raises(OverBudgetError):
        prolific.pay()
    with prolific.context.reading() as session:
        assert payments.committed(session) <= 2 * UNIT
    assert prolific.cost == 0
