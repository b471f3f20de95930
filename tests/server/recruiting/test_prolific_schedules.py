"""Any events in any order at the local Prolific: pauses, slow publishing, completion, screen-outs that run out, faults.

Whatever happens: no place more than is wanted, never beyond the budget, no `sync` that is stuck. `make soak` tries a
thousand schedules.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from embeddings.errors import RootnoteError
from server.assignments.experiment import StepRefusedError
from server.payments import ledger
from server.recruiting import launch
from server.simulation.marketplaces.prolific_requests import TransitionStudy
from server.simulation.marketplaces.prolific_studies import FakeProlificError
from tests.scale import count
from tests.server.recruiting.prolific_study import (
    UNIT,
    MakeProlific,
    ProlificShow,
    Taken,
    a_show,
    begin_again,
    make_prolific,
    participant,
)
from tests.server.recruiting.random_schedules import database_url, run_schedules
from tests.server.recruiting.test_crashes import Breaker

__all__ = ["database_url", "make_prolific"]  # fixtures
SCHEDULES = count(6, 1000)
PLACES, WORKERS = 3, 6
HOWS = ("", "", "throttle", "fail", "fail_after", "timeout_before", "timeout_after", "twice")
ASKED = ("CreateStudy", "TransitionStudy", "UpdateStudy", "TransitionSubmission", "PayBonuses", "GetStudy")
PAY = "[pay]\nscreened_out = 0.60\nwithout_sound = 0.60\n"
workers = st.integers(1, WORKERS).map("W{}".format)


class ProlificSchedule(RuleBasedStateMachine):
    """One study at one market."""

    show: ClassVar[ProlificShow]

    def __init__(self) -> None:
        super().__init__()
        begin_again(self.show)
        self.study, self.market = self.show.mturk, self.show.mturk.market
        self.held: dict[str, Taken] = {}
        self.ended: dict[str, str] = {}
        self.paused = False

    @initialize(delay=st.sampled_from([0, 0, 3]), budget=st.sampled_from([PLACES * UNIT, 5 * UNIT, 20 * UNIT]))
    def launch(self, delay: int, budget: int) -> None:
        self.market.state.publishing_delay = timedelta(minutes=delay)
        self.budget = budget
        self.study.launch(budget=budget)

    # ---------------------------------------------------------- workers

    @rule(worker=workers)
    def accept(self, worker: str) -> None:
        if worker not in self.held and (taken := self.study.accept(worker)):
            self.held[worker] = taken

    @rule(worker=workers, ends=st.sampled_from(["finish", "finish", "technical", "technical", "leave"]))
    def listen(self, worker: str, ends: str) -> None:
        if worker in self.held and worker not in self.ended and self.is_theirs(worker):
            with contextlib.suppress(StepRefusedError):
                self.show.listen(self.held[worker], ends)  # type: ignore[arg-type]
                self.ended[worker] = ends

    @rule(worker=workers, right=st.booleans())
    def hand_in(self, worker: str, right: bool) -> None:
        if worker in self.held and self.is_theirs(worker):
            outcome = {"finish": "finished", "technical": "screened_out"}.get(self.ended.get(worker, ""))
            code = self.show.mturk.code(outcome) if outcome and right else "NOCODE"
            self.market.complete(self.held.pop(worker).assignment_id, code)

    @rule(worker=workers, how=st.sampled_from(["return_", "abandon"]))
    def give_back(self, worker: str, how: str) -> None:
        if worker in self.held:
            if self.is_theirs(worker):
                getattr(self.market, how)(self.held[worker].assignment_id)
            del self.held[worker]

    def is_theirs(self, worker: str) -> bool:
        self.market.tick()
        return str(self.market.state.submissions[self.held[worker].assignment_id].status) == "ACTIVE"

    # ---------------------------------------------------------- the researcher

    @rule(how=st.sampled_from(HOWS), operation=st.sampled_from(ASKED), nth=st.integers(1, 2))
    def sync(self, how: str, operation: str, nth: int) -> None:
        if how:
            self.market.fail(operation, nth, how)
        with contextlib.suppress(RootnoteError):
            self.study.sync()

    @rule()
    def pay(self) -> None:
        with contextlib.suppress(RootnoteError):
            self.study.pay()

    @rule(action=st.sampled_from(["PAUSE", "START"]))
    def on_the_website(self, action: Any) -> None:
        for study in list(self.market.state.studies.values()):
            with contextlib.suppress(FakeProlificError):
                self.market.state.move(study, TransitionStudy(action=action))

    @rule(minutes=st.sampled_from([2, 2, 11, 61]))
    def wait(self, minutes: int) -> None:
        self.study.wait(minutes)

    # ---------------------------------------------------------- what must hold

    @invariant()
    def there_is_no_place_too_many(self) -> None:
        """Prolific has the places that are wanted, one more for each that was used up, and those it added itself."""
        for study in self.market.state.studies.values():
            done = {participant(worker) for worker, ends in self.ended.items() if ends == "finish"}
            closed = ("AWAITING REVIEW", "APPROVED", "REJECTED")
            used_up = sum(one.status in closed and one.participant not in done for one in study.submissions)
            assert study.places - study.count("SCREENED OUT") <= PLACES + used_up
        running = [one for one in self.market.state.studies.values() if one.status != "UNPUBLISHED"]
        assert len(running) <= 1

    @invariant()
    def the_budget_holds(self) -> None:
        assert self.study.paid <= self.study.cost <= getattr(self, "budget", 0)
        with self.study.context.reading() as session:
            assert ledger.committed(session) <= getattr(self, "budget", 0)

    @invariant()
    def nobody_is_paid_twice(self) -> None:
        paid = Counter(entry.worker for entry in self.market.ledger() if entry.kind not in ("fee", "tax"))
        assert all(number == 1 for number in paid.values())

    def teardown(self) -> None:
        self.market.faults = type(self.market.faults)()
        with self.study.context.writing() as session:
            if (found := ledger.launch(session)) is not None:
                found.budget_cents = self.budget = 100 * UNIT
        for worker in list(self.held):
            self.give_back(worker, "return_")
        self.on_the_website("START")
        for _ in range(3):
            self.study.wait(61)
            for one in list(self.market.state.submissions.values()):
                if one.return_requested and one.status == "AWAITING REVIEW":
                    self.market.return_(one.id)
            self.study.sync()
            self.study.pay()
        launch.stop(self.study.context, "test")
        self.study.sync()
        self.study.wait(22 * 24 * 60)  # what a person was to decide is approved by itself
        for _ in range(2):
            self.study.sync()
        paid = {entry.worker for entry in self.market.ledger()}
        for worker, ends in self.ended.items():
            assert ends == "leave" or participant(worker) in paid, f"{worker}, who ended by {ends}, is not paid"
        self.there_is_no_place_too_many()
        self.nobody_is_paid_twice()
        assert self.study.paid == self.study.cost
        assert all(study.status in ("COMPLETED", "UNPUBLISHED") for study in self.market.state.studies.values())
        assert self.market.on_hold == 0
        assert self.study.site.query("SELECT id FROM payments WHERE state = 'pending'") == []
        assert self.study.site.query("SELECT id FROM openings WHERE settled_at IS NULL") == []


@pytest.mark.slow
def test_no_place_too_many_and_no_cent_too_much_in_any_order(make_prolific: MakeProlific) -> None:
    show = a_show(lambda **options: make_prolific(toml=PAY, **options), Breaker(at=0), PLACES)
    show.mturk.context.marketplace._api._sleep = lambda seconds: None  # type: ignore[attr-defined]
    show.mturk.launch()
    ProlificSchedule.show = show
    run_schedules(ProlificSchedule, SCHEDULES)
