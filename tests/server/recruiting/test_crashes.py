"""A launch that breaks off before and after every marketplace call and every commit, and loses no cent.

A `Breaker` meets the points where a program may die, by what is done there, not by when: each is a point once. A crash
is a BaseException, which no code of ours catches; after it a new program starts, and synchronises first.

`make soak` breaks a launch of the paper's size everywhere, and a small launch at every single point alone; `make test`
takes few listeners, and every 25th point alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from server.assignments import audio, lifecycle, trials
from server.assignments.experiment import Experiment
from server.assignments.trials import TrialAnswer
from server.db.models import Launch, MarketplaceSubmission, Payment, Posting
from server.payments import ledger
from server.recruiting import direct_payments, launch
from server.recruiting.context import RecruitingContext
from server.recruiting.exclusive import exclusive
from server.recruiting.marketplace_entry import MarketplaceEntry
from server.recruiting.marketplaces.base import DirectPayment, PostingOrder, ReportedSubmission
from server.simulation.fake_mturk import AcceptedHit, FakeMTurk
from study.trial_plan import read_plan
from tests.scale import count
from tests.server.recruiting.mturk_study import (
    NO_PRESCREEN,
    MTurkStudy,
    empty_database,
    made_payments,
    make_mturk,
    query_of,
)

__all__ = ["make_mturk"]
MakeMTurk = Callable[..., MTurkStudy]
LISTENERS = count(3, 90)
EVERY = count(25, 1)
UNIT = 180
OPERATIONS = (
    "open",
    "publish",
    "submissions",
    "approve",
    "bonus",
    "close",
    "has_paid",
    "exclude",
    "allow_screen_outs",
    "request_return",
)


class Crash(BaseException):
    """The program dies."""


@dataclass
class Breaker:
    """Dies at the point `at`, counted from 1, or at each point once."""

    at: int | None = None
    points: list[str] = field(default_factory=list)
    crashes: int = 0
    armed: bool = False

    def __call__(self, point: str) -> None:
        if not self.armed or point in self.points:
            return
        self.points.append(point)
        if self.at is None or len(self.points) == self.at:
            self.crashes += 1
            raise Crash(point)


class BreakingMarketplace:
    """A marketplace whose every call may be the last thing that a program does, before it or after it."""

    def __init__(self, inner: Any, breaker: Breaker) -> None:
        self._inner, self._breaker = inner, breaker

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in OPERATIONS:
            return found

        def call(*given: Any) -> Any:
            what = f"{name} {' '.join(_name(one) for one in given)}"
            self._breaker(f"before {what}")
            answer = found(*given)
            self._breaker(f"after {what}")
            return answer

        return call


def _name(given: Any) -> str:
    match given:
        case PostingOrder():
            return f"{given.total} {given.only_for}"
        case ReportedSubmission():
            return given.id
        case DirectPayment():
            return f"{given.kind} {given.submission.id}"
    return str(given)


@dataclass(frozen=True)
class BreakingContext(RecruitingContext):
    """A context whose every transaction that changes something may be the last, before its commit or after it."""

    breaker: Breaker = field(default_factory=Breaker)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        changed: set[str] = set()

        def note(session: Session, context: Any) -> None:
            earlier = select(func.count()).select_from(Posting)
            for row in (*session.new, *session.dirty):
                # A sequence of PostgreSQL skips what was rolled back: a posting is named by its rank.
                rank = session.connection().scalar(earlier.where(Posting.id < row.id)) if is_opening(row) else 0
                changed.add(f"{_describe(row)} {rank}")

        with super().writing() as session:
            event.listen(session, "after_flush", note)
            yield session
            session.flush()
            what = " ".join(sorted(changed))
            if what:
                self.breaker(f"before commit {what}")
        if what:
            self.breaker(f"after commit {what}")


def is_opening(row: Any) -> bool:
    return isinstance(row, Posting)


def _describe(row: Any) -> str:
    match row:
        case Payment():
            return f"payment {row.assignment_id} {row.kind} {row.state}"
        case Posting():
            return f"opening {row.market_id is None} {row.closed_at is None} {row.settled_at is None}"
        case MarketplaceSubmission():
            return f"submission {row.key[:8]} {row.status} {row.excluded}"
        case Launch():
            return f"launch {row.closed_at is None}"
    return type(row).__name__


# ------------------------------------------------------------------ the launch


@dataclass
class Show:
    """A launch: listeners who finish and submit, one who cannot submit, one who leaves, one who hears nothing."""

    mturk: MTurkStudy
    breaker: Breaker
    listeners: int

    def __post_init__(self) -> None:
        mturk = self.mturk
        self.experiment = Experiment(mturk.context.config, read_plan(mturk.site.study), mturk.clock)
        self.marketplace_entry = MarketplaceEntry(
            mturk.context.marketplace, mturk.context.vault, mturk.context.signer, mturk.context.config.pay
        )
        self.healthy = mturk.context

    def run(self) -> None:
        self.command(lambda: self.mturk.launch())
        for number in range(self.listeners - 1):
            self.take(f"A{number}", submits=True)
        self.take("ALEFT", "leave", submits=False)
        self.take("AMUTE", "technical", submits=True)
        self.mturk.wait(5)
        self.command(self.mturk.sync)
        self.take("ALAST", submits=False)  # finishes, but the HIT does not take the work
        self.mturk.wait(5)
        self.command(self.mturk.sync)
        self.command(self.mturk.pay)
        owed = self.mturk.accept("ALAST")
        assert owed is not None, "a place to be paid by"
        self.mturk.market.submit(owed.assignment_id)
        self.command(self.mturk.sync)
        self.command(self.bonus)
        self.command(lambda: launch.stop(self.mturk.context, "test"))
        for _ in range(2):
            self.command(self.mturk.sync)

    def command(self, act: Callable[[], object]) -> None:
        """Give a command, again and again until it is through; a new program synchronises first."""
        crashed = False
        while True:
            marketplace = BreakingMarketplace(self._new_marketplace(), self.breaker)
            known = {one.name: getattr(self.healthy, one.name) for one in fields(RecruitingContext)}
            self.mturk.context = BreakingContext(**known | {"marketplace": marketplace}, breaker=self.breaker)
            self.breaker.armed = True
            try:
                with exclusive(self.mturk.context.engine):
                    if crashed and self._is_launched():
                        self.mturk.sync()
                    act()
                return
            except Crash:
                crashed = True
            finally:
                self.breaker.armed = False
                self.mturk.context = self.healthy

    def _new_marketplace(self) -> Any:
        # What a program remembers dies with it; its connections are as good as new ones.
        inner: Any = self.healthy.marketplace
        inner._qualification_types.clear()
        return inner

    def _is_launched(self) -> bool:
        with self.healthy.reading() as session:
            return ledger.launch(session) is not None

    def bonus(self) -> None:
        with self.mturk.context.reading() as session:
            first = made_payments(session)[0]
        direct_payments.pay_directly(
            self.mturk.context, first.assignment_id, "bonus", 25, "Thank you.", first.submission_id
        )  # type: ignore[arg-type]

    def take(self, worker: str, ends: str = "finish", *, submits: bool) -> None:
        """One worker takes a place, and part; the listener's side is the server's, and does not break here."""
        accepted = self.mturk.accept(worker)
        assert accepted is not None, f"no place for {worker}"
        self.listen(accepted, ends)
        if submits:
            self.mturk.market.submit(accepted.assignment_id)
        else:
            self.mturk.market.return_(accepted.assignment_id)

    def listen(self, accepted: AcceptedHit, ends: str) -> None:
        with self.healthy.writing() as session:
            arrival = self.marketplace_entry.read_arrival(session, query_of(accepted.external_url))
            ticket = self.marketplace_entry.ticket_for("0" * 64, arrival)
            assignment = lifecycle.consent(session, self.experiment, ticket, self.healthy.signer.token_for(ticket))
            self.marketplace_entry.record_arrival(session, assignment, arrival, self.mturk.clock())
            if ends == "leave":
                lifecycle.leave(session, self.experiment, assignment)
            elif ends == "technical":
                lifecycle.end_for_technical_reasons(session, self.experiment, assignment)
            else:
                trials.begin_listening(session, self.experiment, assignment)
                for clip in trials.served_trials(session, assignment).of(1).values():
                    found = audio.find_sound(session, self.experiment, clip.sound)
                    assert found is not None and found.undelivered is not None
                    audio.mark_fetched(session, self.experiment, found.undelivered)
                session.expire_all()
                trials.answer_trial(session, self.experiment, assignment, TrialAnswer(1, "A", 4000, 1, 1, 1), 4.0)
                lifecycle.answer_questions(session, self.experiment, assignment, {})

    def check(self) -> None:
        """No double payment, no unpaid finisher, no leaked HIT, no lost answer, and the ledgers agree to the cent."""
        mturk, finishers = self.mturk, [*(f"A{n}" for n in range(self.listeners - 1)), "ALAST"]
        assert mturk.rewards() == sorted([*finishers, "AMUTE"])
        assert [entry.amount for entry in mturk.market.ledger() if entry.kind == "bonus"] == [payments_usd(25)]
        assert mturk.cost == mturk.paid == (self.listeners + 1) * UNIT + 30
        states = mturk.states()
        assert states.count("paid") == self.listeners
        assert sorted(set(states)) == ["paid", "technical", "withdrawn"]
        assert mturk.site.query("SELECT count(*) FROM responses") == [(self.listeners,)]
        assert mturk.open_places() == 0
        assert mturk.market.on_hold == 0
        assert not any(mturk.site.query(f"SELECT * FROM {sql}") for sql in LEFT_OPEN)
        # one place more than listeners for each who used one up without filling it, and one to be paid by
        ordered = sum(len(hit.places) for hit in mturk.market.state.hits.values())
        assert ordered == self.listeners + 1 + 1
        with mturk.context.reading() as session:
            assert ledger.committed(session) == mturk.cost


LEFT_OPEN = (
    "openings WHERE settled_at IS NULL OR market_id IS NULL",
    "payments WHERE state <> 'paid'",
    "submissions WHERE status = 'submitted'",
)


def payments_usd(amount: int) -> Any:
    from decimal import Decimal

    return Decimal(amount) / 100


def make_show(make: MakeMTurk, listeners: int, breaker: Breaker) -> Show:
    return Show(make(listeners=listeners, trials=1, toml=NO_PRESCREEN), breaker, listeners)


def test_a_launch_that_breaks_nowhere(make_mturk: MakeMTurk) -> None:
    show = make_show(make_mturk, 3, Breaker(at=0))
    show.run()
    show.check()


@pytest.mark.both_databases
@pytest.mark.slow
def test_a_launch_that_breaks_off_at_each_point_once(make_mturk: MakeMTurk) -> None:
    breaker = Breaker()
    show = make_show(make_mturk, LISTENERS, breaker)
    show.run()
    show.check()
    assert breaker.crashes == len(set(breaker.points)) >= 14 * LISTENERS
    print(f"{LISTENERS} listeners, {breaker.crashes} crashes")


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_launch_that_breaks_off_at_one_point_alone(make_mturk: MakeMTurk) -> None:
    show = make_show(make_mturk, 2, Breaker(at=0))
    show.run()
    points = len(show.breaker.points)
    assert points > 60, "every point is known beforehand"
    for at in range(1, points + 1, EVERY):
        afresh(show, Breaker(at=at))
        show.run()
        assert show.breaker.crashes == 1, at
        show.check()


def afresh(show: Show, breaker: Breaker) -> None:
    """Another launch in the same house: an empty database and a market where nothing has happened."""
    empty_database(show.mturk.context.engine)
    market, marketplace = show.mturk.market, show.mturk.context.marketplace
    vars(marketplace)["_qualification_types"].clear()
    market.faults = type(market.faults)()
    fresh = FakeMTurk("1000.00", clock=show.mturk.clock, seed=len(market.calls))
    market.state, market.workers, market.entries = fresh.state, fresh.workers, []
    fresh.state.emit, fresh.state.new_id = market.emit, market.new_id
    fresh.state._pay_out = market.pay
    show.breaker = breaker
