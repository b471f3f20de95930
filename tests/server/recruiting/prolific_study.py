"""A study at a local Prolific: people, the researcher's commands, and a launch that may break off anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from server.db.enums import RunOutcome
from server.identity.tokens import TokenSigner
from server.identity.vault import Vault
from server.payments import ledger
from server.payments.fees import rounded
from server.recruiting import launch
from server.recruiting.context import RecruitingContext
from server.recruiting.marketplaces.prolific import ProlificMarketplace
from server.recruiting.postings import expected_screen_outs
from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplaces.prolific_studies import FakeProlificError
from study.config import load_study
from tests.server.conftest import SECRET, FakeClock, Site
from tests.server.recruiting.mturk_study import KEY, NO_PRESCREEN, URL, MTurkStudy, empty_database
from tests.server.recruiting.test_crashes import LEFT_OPEN, LISTENERS, Breaker, Show

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

    def code(self, outcome: RunOutcome) -> str:
        """The launch's code for an outcome."""
        with self.context.reading() as session:
            launched = ledger.launch(session)
        assert launched is not None
        return self.context.marketplace.code(outcome, launched.code_key or "")


MakeProlific = Callable[..., ProlificStudy]


@pytest.fixture
def make_prolific(make_site: Callable[..., Site], clock: FakeClock) -> Iterator[Callable[..., ProlificStudy]]:
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> ProlificStudy:
            market = stack.enter_context(options.pop("market", FakeProlific)("10000.00", clock=clock))
            market.state.bonus_delay = timedelta(minutes=3)
            vault = Vault([KEY])
            limited = options.pop("limited", False)  # whether one address may begin only a few unconfirmed runs
            settings = {"vault": vault, "market_url": market.url, "rehearsal": not limited}
            toml = PROLIFIC + NO_PRESCREEN + options.pop("toml", "")
            if "[pay]" not in toml:  # less than the reward, so that Prolific pays who cannot hear by itself
                toml += "[pay]\nscreened_out = 1.40\nwithout_sound = 1.40\n"
            site = make_site(toml=toml, settings=settings, **options)
            marketplace = ProlificMarketplace(load_study(site.study.folder), endpoint=market.url)
            stack.callback(marketplace.disconnect)
            engine = site.app.extensions["rootnote"].engine
            config = load_study(site.study.folder).config
            context = RecruitingContext(engine, marketplace, config, TokenSigner(SECRET), vault, f"{URL}/take", clock)
            return ProlificStudy(site, market, context, clock)

        yield make


class ProlificShow(Show):
    """Those who finish and submit, one who leaves, some who hear nothing, one whose time runs out at the end."""

    mturk: Any

    @property
    def mute(self) -> int:
        """How many hear nothing: as many as are paid for beforehand."""
        return expected_screen_outs(self.listeners)

    def run(self) -> None:
        mturk = self.mturk
        self.command(lambda: mturk.launch())
        for number in range(self.listeners - 1):
            self.take(f"A{number}", submits=True)
        self.take("ALEFT", "leave", submits=False)
        for number in range(self.mute):  # the last paid screen-out pauses the study
            self.take(f"AMUTE{number}", "technical", submits=True)
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
            outcome: RunOutcome = "screened_out" if ends == "technical" else "finished"
            self.mturk.market.complete(taken.assignment_id, self.mturk.code(outcome))
        elif ends == "leave":
            self.mturk.market.return_(taken.assignment_id)
        else:
            self.mturk.market.abandon(taken.assignment_id)

    def _new_marketplace(self) -> Any:
        inner: Any = self.healthy.marketplace
        inner._places._variant = None
        inner._submissions.paid.clear()  # what a program remembers dies with it
        return inner

    def check(self) -> None:
        """No double payment, no unpaid finisher, no study left open, no lost answer; the ledgers agree to the cent."""
        mturk, entries = self.mturk, self.mturk.market.ledger()
        paid = [(entry.kind, entry.amount) for entry in entries if entry.kind not in ("fee", "tax")]
        assert sorted(paid) == sorted(
            [
                *[("reward", Decimal("1.50"))] * (self.listeners - 1),
                *[("screen-out", Decimal("1.40"))] * self.mute,
                ("bonus", Decimal("1.50")),
                ("bonus", Decimal("0.25")),
            ]
        )
        assert len({entry.assignment for entry in entries if entry.kind == "reward"}) == self.listeners - 1
        extra = (self.mute * 140 + 25) * Fraction(4, 3)  # screen-outs and a bonus, with a third on each
        assert mturk.cost == mturk.paid == self.listeners * UNIT + rounded(extra)
        states = mturk.states()
        assert states.count("paid") == self.listeners
        assert sorted(set(states)) == ["paid", "technical", "withdrawn"]
        assert mturk.site.query("SELECT count(*) FROM responses") == [(self.listeners,)]
        published = [study for study in mturk.market.state.studies.values() if study.status != "UNPUBLISHED"]
        assert [(study.status, study.places) for study in published] == [("COMPLETED", self.listeners + self.mute)]
        assert mturk.market.on_hold == 0
        assert not any(mturk.site.query(f"SELECT * FROM {sql}") for sql in LEFT_OPEN)


def a_show(make: Callable[..., ProlificStudy], breaker: Breaker, listeners: int = LISTENERS) -> ProlificShow:
    return ProlificShow(make(listeners=listeners, trials=1), breaker, listeners)


def begin_again(show: ProlificShow, breaker: Breaker | None = None) -> None:
    """Another launch in the same house: an empty database and a market where nothing has happened."""
    empty_database(show.mturk.context.engine)
    market, marketplace = show.mturk.market, show.mturk.context.marketplace
    marketplace._places._variant = None
    marketplace._submissions.paid.clear()
    market.faults, show.breaker = type(market.faults)(), breaker or Breaker(at=0)
    fresh = FakeProlific("10000.00", clock=show.mturk.clock, seed=len(market.calls))
    market.state, market.participants, market.entries = fresh.state, fresh.participants, []
    fresh.state.emit, fresh.state.new_id, fresh.state._pay_out = market.emit, market.new_id, market.pay
    fresh.state.bonus_delay = timedelta(minutes=3)
    fresh.state.deposit = Decimal(10_000)
