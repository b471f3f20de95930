"""Money at the local Mechanical Turk: after any sequence of events every cent is in the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from server.simulation.fake_mturk import FakeMTurk
from server.simulation.marketplaces import turk_wire
from server.simulation.marketplaces.money import total
from server.simulation.marketplaces.turk_places import FakeMTurkError
from tests.scale import count
from tests.server.simulation.test_fake_mturk import HIT, TYPE, StoppedClock


class AccountMachine(RuleBasedStateMachine):
    """Whatever is asked in whatever order: no cent appears, disappears or is paid twice."""

    hits = Bundle("hits")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.market = FakeMTurk(balance="60.00", clock=StoppedClock())
        for number in range(4):
            self.market.workers.add(f"A{number}")

    def ask(self, operation: str, **given: Any) -> dict[str, Any]:
        self.market.tick()
        reply = turk_wire.answer(self.market.state, operation, given)
        assert reply.status in (200, 400)
        return httpx.Response(reply.status, content=reply.body).json() if reply.status == 200 else {}

    @rule(target=hits, places=st.integers(1, 12), cents=st.integers(0, 400))
    def create(self, places: int, cents: int) -> Any:
        reward = {"Reward": f"{cents // 100}.{cents % 100:02d}"}
        made = self.ask("CreateHIT", **TYPE | reward, **HIT, MaxAssignments=places)
        return made["HIT"]["HITId"] if made else multiple()

    @rule(target=held, hit=hits, worker=st.integers(0, 3))
    def accept(self, hit: str, worker: int) -> Any:
        with contextlib.suppress(FakeMTurkError):
            return self.market.accept(f"A{worker}", hit).assignment_id
        return multiple()

    @rule(id_=held, what=st.sampled_from(["submit", "submit", "return_", "abandon"]))
    def work(self, id_: str, what: str) -> None:
        with contextlib.suppress(FakeMTurkError):
            getattr(self.market, what)(id_)

    @rule(id_=held, override=st.booleans())
    def approve(self, id_: str, override: bool) -> None:
        self.ask("ApproveAssignment", AssignmentId=id_, OverrideRejection=override)

    @rule(id_=held)
    def reject(self, id_: str) -> None:
        self.ask("RejectAssignment", AssignmentId=id_, RequesterFeedback="f")

    @rule(id_=held, token=st.integers(1, 3), cents=st.integers(1, 99))
    def bonus(self, id_: str, token: int, cents: int) -> None:
        worker = self.market.state.places[id_].worker or "A0"
        amount = {"BonusAmount": f"0.{cents:02d}", "UniqueRequestToken": str(token)}
        self.ask("SendBonus", AssignmentId=id_, WorkerId=worker, Reason="r", **amount)

    @rule(hit=hits, more=st.integers(1, 3))
    def extend(self, hit: str, more: int) -> None:
        self.ask("CreateAdditionalAssignmentsForHIT", HITId=hit, NumberOfAdditionalAssignments=more)

    @rule(hit=hits, hours=st.integers(-3, 3))
    def expire(self, hit: str, hours: int) -> None:
        at = self.market.now() + timedelta(hours=hours)
        self.ask("UpdateExpirationForHIT", HITId=hit, ExpireAt=at.timestamp())

    @rule(hit=hits)
    def delete(self, hit: str) -> None:
        self.ask("DeleteHIT", HITId=hit)

    @rule(minutes=st.sampled_from([10, 61, 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.market.advance(timedelta(minutes=minutes))

    @invariant()
    def money_is_conserved(self) -> None:
        market, entries = self.market, self.market.ledger()
        assert market.balance + market.on_hold + total(entries) == Decimal("60.00")
        assert market.balance >= 0 <= market.on_hold

    @invariant()
    def every_approved_assignment_is_paid_once(self) -> None:
        rewarded = [entry.assignment for entry in self.market.ledger() if entry.kind == "reward"]
        places = self.market.state.places.values()
        approved = [place.id for place in places if place.status == "Approved" and place.hit.type.reward]
        assert sorted(rewarded) == sorted(approved)
        bonuses = [entry.reference for entry in self.market.ledger() if entry.kind == "bonus"]
        assert len(bonuses) == len(set(bonuses))


AccountMachine.TestCase.settings = settings(max_examples=count(12, soak=300), stateful_step_count=25, deadline=None)
test_money_under_any_sequence_of_events: Callable[..., Any] = AccountMachine.TestCase
