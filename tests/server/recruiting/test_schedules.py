"""Any events in any order, with requests that arrive twice, late or never: no cent is lost or paid twice.

Workers take, finish, hand in, return and abandon; the researcher synchronises and pays, while calls fail before or
after their work, and time goes by. At the end of every schedule all faults cease and everything must come right.
`make soak` tries thousands of schedules.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from embeddings.errors import RootnoteError
from server.assignments.experiment import StepRefusedError
from server.recruiting import direct_payments, launch
from server.simulation.fake_mturk import AcceptedHit
from tests.scale import count
from tests.server.recruiting.mturk_study import made_payments, make_mturk
from tests.server.recruiting.random_schedules import database_url, run_schedules
from tests.server.recruiting.test_crashes import Breaker, MakeMTurk, Show, afresh, make_show

__all__ = ["database_url", "make_mturk"]  # fixtures
SCHEDULES = count(6, 2000)
PLACES, WORKERS = 3, 5
HOWS = ("", "", "throttle", "fail", "fail_after", "timeout_before", "timeout_after", "twice")
ASKED = ("CreateHITWithHITType", "ApproveAssignment", "SendBonus", "GetHIT", "AssociateQualificationWithWorker")
workers = st.integers(1, WORKERS).map("A{}".format)


class Schedule(RuleBasedStateMachine):
    """One study at one market."""

    show: ClassVar[Show]

    def __init__(self) -> None:
        super().__init__()
        afresh(self.show, Breaker(at=0))
        self.mturk, self.market = self.show.mturk, self.show.mturk.market
        self.held: dict[str, AcceptedHit] = {}
        self.ended: dict[str, str] = {}
        self.submitted: Counter[str] = Counter()
        self.mturk.launch()

    # ---------------------------------------------------------- workers

    @rule(worker=workers)
    def accept(self, worker: str) -> None:
        if worker not in self.held and (accepted := self.mturk.accept(worker)):
            self.held[worker] = accepted

    @rule(worker=workers, ends=st.sampled_from(["finish", "finish", "finish", "technical", "leave"]))
    def listen(self, worker: str, ends: str) -> None:
        if worker in self.held and worker not in self.ended:
            with contextlib.suppress(StepRefusedError):  # no place is free, or the place is one to be paid by
                self.show.listen(self.held[worker], ends)
                self.ended[worker] = ends

    @rule(worker=workers, complete=st.booleans())
    def hand_in(self, worker: str, complete: bool) -> None:
        if worker in self.held and (self.ended.get(worker) in ("finish", "technical") or not complete):
            accepted = self.held.pop(worker)
            if self.is_theirs(worker, accepted):
                self.market.submit(accepted.assignment_id)
                self.submitted[worker] += 1

    @rule(worker=workers, how=st.sampled_from(["return_", "abandon"]))
    def give_back(self, worker: str, how: str) -> None:
        if worker in self.held:
            accepted = self.held.pop(worker)
            if self.is_theirs(worker, accepted):
                getattr(self.market, how)(accepted.assignment_id)

    def is_theirs(self, worker: str, accepted: AcceptedHit) -> bool:
        """Whether the place is theirs still: their time may be over, and the id another worker's by now."""
        self.market.tick()
        place = self.market.state.places[accepted.assignment_id]
        return (place.worker, place.status) == (worker, "pending")

    # ---------------------------------------------------------- the researcher

    @rule(how=st.sampled_from(HOWS), operation=st.sampled_from(ASKED), nth=st.integers(1, 3))
    def sync(self, how: str, operation: str, nth: int) -> None:
        with self.faulty(how, operation, nth):
            self.mturk.sync()

    @rule(how=st.sampled_from(HOWS), operation=st.sampled_from(ASKED), nth=st.integers(1, 2))
    def pay(self, how: str, operation: str, nth: int) -> None:
        with self.faulty(how, operation, nth):
            self.mturk.pay()

    @rule(how=st.sampled_from(HOWS))
    def bonus(self, how: str) -> None:
        with self.mturk.context.reading() as session:
            paid = [one for one in made_payments(session) if one.kind == "reward" and one.assignment_id]
        if paid:
            with self.faulty(how, "SendBonus", 1):
                first = paid[0]
                direct_payments.pay_directly(
                    self.mturk.context, first.assignment_id or 0, "bonus", 25, "Thanks.", first.submission_id
                )

    @rule(minutes=st.sampled_from([2, 2, 30, 61, 4 * 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.mturk.wait(minutes)

    @contextlib.contextmanager
    def faulty(self, how: str, operation: str, nth: int) -> Iterator[None]:
        if how:
            self.market.fail(operation, nth, how)
        with contextlib.suppress(RootnoteError):
            yield

    # ---------------------------------------------------------- what must hold

    @invariant()
    def the_books_never_claim_more_than_was_paid(self) -> None:
        assert self.mturk.paid <= self.mturk.cost

    @invariant()
    def nothing_is_paid_twice(self) -> None:
        rewarded = Counter(self.mturk.rewards())
        assert all(number <= self.submitted[worker] for worker, number in rewarded.items())
        assert sum(entry.kind == "bonus" for entry in self.market.ledger()) <= 1

    def teardown(self) -> None:
        self.market.faults = type(self.market.faults)()
        for worker in list(self.held):
            self.give_back(worker, "return_")
        for _ in range(2):
            self.mturk.wait(61)
            self.mturk.sync()
            self.mturk.pay()
            for worker, ends in self.ended.items():
                if ends != "leave" and (owed := self.mturk.accept(worker)) and "owed" in owed.external_url:
                    self.market.submit(owed.assignment_id)
                    self.submitted[worker] += 1
        self.mturk.wait(5 * 24 * 60)  # what a person was to decide is approved by itself
        launch.stop(self.mturk.context, "test")
        for _ in range(2):
            self.mturk.sync()
        rewarded = Counter(self.mturk.rewards())
        for worker, ends in self.ended.items():
            if ends != "leave":
                assert rewarded[worker] >= 1, f"{worker} is not paid"
        self.nothing_is_paid_twice()
        assert self.mturk.paid == self.mturk.cost
        assert self.mturk.open_places() == 0
        assert self.mturk.site.query("SELECT id FROM payments WHERE state = 'pending'") == []


@pytest.mark.slow
def test_no_cent_is_lost_or_paid_twice_in_any_order(make_mturk: MakeMTurk) -> None:
    Schedule.show = make_show(make_mturk, PLACES, Breaker(at=0))
    Schedule.show.mturk.launch()
    run_schedules(Schedule, SCHEDULES)
