"""Money at the local Prolific: after any sequence of events every cent is in the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from server.simulation.fake_prolific import FakeProlific
from server.simulation.marketplaces import prolific_wire
from server.simulation.marketplaces.http_messages import HttpRequest
from server.simulation.marketplaces.money import total
from server.simulation.marketplaces.prolific_studies import FakeProlificError
from tests.scale import count
from tests.server.simulation.test_fake_prolific import CODES, STUDY, P, StoppedClock, screen_out_code


class AccountMachine(RuleBasedStateMachine):
    """Whatever is asked in whatever order: no cent appears, disappears or is paid twice."""

    studies = Bundle("studies")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.market = FakeProlific(balance="60.00", clock=StoppedClock(), tax_rate=Fraction(1, 5))
        self.bulks = 0
        for who in P[:4]:
            self.market.participants.add(who)

    def ask(self, method: str, path: str, given: Any = None) -> Any:
        self.market.tick()
        body = b"" if given is None else httpx.Request(method, "http://local", json=given).read()
        request = HttpRequest(method, f"/api/v1{path}", {}, {}, body)
        reply = prolific_wire.answer(self.market, request)
        assert reply.status < 500
        return httpx.Response(reply.status, content=reply.body).json() if reply.status < 400 else None

    @rule(target=studies, places=st.integers(1, 6), reward=st.integers(21, 400), slots=st.integers(1, 3))
    def create(self, places: int, reward: int, slots: int) -> Any:
        given = {
            "total_available_places": places,
            "reward": reward,
            "completion_codes": [*CODES, screen_out_code(slots)],
        }
        made = self.ask("POST", "/studies/", STUDY | given)
        published = self.ask("POST", f"/studies/{made['id']}/transition/", {"action": "PUBLISH"})
        return made["id"] if published else multiple()

    @rule(study=studies, action=st.sampled_from(["PAUSE", "START", "START", "STOP"]))
    def move(self, study: str, action: str) -> None:
        self.ask("POST", f"/studies/{study}/transition/", {"action": action})

    @rule(study=studies, places=st.integers(1, 9))
    def more(self, study: str, places: int) -> None:
        self.ask("PATCH", f"/studies/{study}/", {"total_available_places": places})

    @rule(target=held, study=studies, who=st.sampled_from(P[:4]), opened=st.booleans())
    def take(self, study: str, who: str, opened: bool) -> Any:
        with contextlib.suppress(FakeProlificError):
            return (self.market.take if opened else self.market.reserve)(who, study).submission_id
        return multiple()

    @rule(one=held, what=st.sampled_from(["open", "C0MPLETE", "C0MPLETE", "OUT", "return_", "abandon"]))
    def work(self, one: str, what: str) -> None:
        with contextlib.suppress(FakeProlificError):
            if what in ("C0MPLETE", "OUT"):
                self.market.complete(one, what)
            else:
                getattr(self.market, what)(one)

    @rule(one=held)
    def approve(self, one: str) -> None:
        self.ask("POST", f"/submissions/{one}/transition/", {"action": "APPROVE"})

    @rule(study=studies, slots=st.integers(1, 4))
    def more_screen_outs(self, study: str, slots: int) -> None:
        self.ask("PATCH", f"/studies/{study}/", {"completion_codes": [*CODES, screen_out_code(slots)]})

    @rule(one=held, cents=st.integers(1, 99))
    def bonus(self, one: str, cents: int) -> None:
        study = self.market.state.submissions[one].study.id
        made = self.ask(
            "POST", "/submissions/bonus-payments/", {"study_id": study, "csv_bonuses": f"{one},0.{cents:02}"}
        )
        if made and self.ask("POST", f"/bulk-bonus-payments/{made['id']}/pay/"):
            self.bulks += 1

    @rule(minutes=st.sampled_from([5, 10, 61, 31_000]))
    def wait(self, minutes: int) -> None:
        self.market.advance(timedelta(minutes=minutes))

    @invariant()
    def money_is_conserved(self) -> None:
        market, entries = self.market, self.market.ledger()
        assert market.balance + market.on_hold + total(entries) == Decimal("60.00")
        assert market.balance >= 0 <= market.on_hold

    @invariant()
    def what_is_approved_or_screened_out_is_paid_once(self) -> None:
        entries = self.market.ledger()
        for kind, status in (("reward", "APPROVED"), ("screen-out", "SCREENED OUT")):
            paid = [entry.assignment for entry in entries if entry.kind == kind]
            ended = [one.id for one in self.market.state.submissions.values() if one.status == status]
            assert sorted(paid) == sorted(ended)
        assert sum(entry.kind == "bonus" for entry in entries) == self.bulks

    @invariant()
    def nobody_is_taken_in_beyond_the_places(self) -> None:
        for study in self.market.state.studies.values():
            assert study.taken <= study.places
            people = [one.participant for one in study.submissions if not one.left]
            assert len(set(people)) == len(people)


AccountMachine.TestCase.settings = settings(max_examples=count(12, soak=300), stateful_step_count=25, deadline=None)
test_money_under_any_sequence_of_events: Callable[..., Any] = AccountMachine.TestCase
