"""A local Prolific: a stateful emulator that our client and browsers use over HTTP.

    with FakeProlific(balance="1000.00") as market:
        # the interface is at market.url + "/api/v1", the token market.token
        market.participants.add("5f…", country="1", approval_rate=99)
        held = market.take("5f…", study_id)              # a place, and the study opened -> Taken
        market.complete(held.submission_id, "C1A2B3")    # as the redirect to app.prolific.com does
        market.return_(…); market.abandon(…)             # returned; out of time
        market.advance(timedelta(minutes=10))            # reservations, time limits, bonuses that are due
        market.fail("PayBonuses", 1, "timeout_after")    # the next PayBonuses; more in marketplaces/faults.py
        market.ledger(), market.balance, market.on_hold  # every cent
        market.calls, market.deliver()                   # what was asked, webhooks
        market.keys.rotate()                             # signed arrivals are signed by another key

Confirmed webhooks are sent by themselves, unless `sends_webhooks` is False; `deliver` sends them in another order,
twice or late.

Every request is checked by a model that refuses what it does not know. Rules: marketplaces/prolific_state.py; pages for
participants at `market.worker_url`: marketplaces/prolific_site.py. What is not emulated is answered 404.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Self

from server.simulation.marketplaces import prolific_site, prolific_wire
from server.simulation.marketplaces.http_messages import HttpReply, HttpRequest, as_json
from server.simulation.marketplaces.loopback import FakeMarketplace, Notification, People
from server.simulation.marketplaces.prolific_hooks import EVERY_SECONDS, FakeHooks
from server.simulation.marketplaces.prolific_state import FEATURES, FakeProlificState
from server.simulation.marketplaces.prolific_studies import (
    FEE_RATE,
    FakeParticipant,
    FakeProlificError,
    FakeSubmission,
    FeeSchedule,
)
from server.simulation.marketplaces.prolific_tokens import SigningKeys

JWKS = "/.well-known/study/jwks.json"


@dataclass(frozen=True)
class TakenPlace:
    """A submission that a participant holds; `external_url` is where the study opens."""

    submission_id: str
    study_id: str
    participant_id: str
    external_url: str


class FakeProlific(FakeMarketplace):
    """The market.

    Args:
        balance: prepaid, in US dollars.
        fee_rate: a share of every payment; `tax_rate`: of the fee.
        features: what the workspace may use that not every workspace may (prolific_state.FEATURES).
    """

    state: FakeProlificState

    def __init__(
        self,
        balance: str = "1000.00",
        clock: Callable[[], datetime] | None = None,
        seed: int = 0,
        token: str = "rehearsal-token",  # noqa: S107 (it opens nothing but this emulator)
        fee_rate: Fraction = FEE_RATE,
        tax_rate: Fraction = Fraction(0),
        features: tuple[str, ...] = FEATURES,
        sends_webhooks: bool = True,
    ) -> None:
        super().__init__(clock, seed)
        self.token = token
        tariff = FeeSchedule(fee_rate, tax_rate)
        self.state = FakeProlificState(Decimal(balance), tariff, self.now, self.new_id, self.pay, features)
        self.keys, self.hooks = SigningKeys(self.now), FakeHooks(self.now, self.new_id)
        self._sends_webhooks, self._closed = sends_webhooks, threading.Event()
        self.state.emit = self.emit
        self.participants = People(self.state.participants, FakeParticipant)

    def new_id(self, prefix: str) -> str:
        """24 hexadecimal digits, as all of Prolific's ids are."""
        return self.next_digest(f"{prefix}:").hex()[:24]

    # ------------------------------------------------------------------ participants

    def reserve(self, participant_id: str, study_id: str) -> TakenPlace:
        """Let someone take a place, without opening the study.

        Raises:
            FakeProlificError: if there is none for them.
        """
        with self.acting():
            return self._taken(self.state.reserve(self.state.participant(participant_id), study_id))

    def open(self, submission_id: str) -> TakenPlace:
        """Let someone open the study that they hold a place in."""
        with self.acting():
            self.state.start(self.state.submission(submission_id))
            return self._taken(self.state.submission(submission_id))

    def take(self, participant_id: str, study_id: str) -> TakenPlace:
        """Let someone take a place and open the study."""
        return self.open(self.reserve(participant_id, study_id).submission_id)

    def complete(self, submission_id: str, code: str) -> None:
        """Come back with a completion code.

        Raises:
            FakeProlificError: if the submission is not under way.
        """
        with self.acting():
            self.state.complete(self.state.submission(submission_id), code)

    def return_(self, submission_id: str) -> None:
        """Return a submission."""
        with self.acting():
            self.state.return_place(self.state.submission(submission_id))

    def abandon(self, submission_id: str) -> None:
        """Let a submission's time run out, without moving the clock."""
        with self.acting():
            self.state.time_out(self.state.submission(submission_id))

    def _taken(self, one: FakeSubmission) -> TakenPlace:
        address = prolific_site.study_address(one, self.keys, self.state.workspace)
        return TakenPlace(one.id, one.study.id, one.participant, address)

    # ------------------------------------------------------------------ webhooks

    def __enter__(self) -> Self:
        super().__enter__()
        if self._sends_webhooks:
            threading.Thread(target=self._send_webhooks, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._closed.set()
        super().__exit__(*error)

    def _send_webhooks(self) -> None:
        while not self._closed.wait(EVERY_SECONDS):
            if self.hooks.wants():
                for one in self.deliver():
                    self.hooks.send(one)

    def send(self, one: Notification, to: str) -> None:
        self.hooks.post(one, to)

    # ------------------------------------------------------------------ the wire

    def handle(self, request: HttpRequest) -> HttpReply:
        if request.path.rstrip("/") == JWKS:
            return as_json(200, self.keys.published())
        if not request.path.startswith(prolific_wire.API + "/"):
            with self.acting():
                return prolific_site.ProlificSite(self.state, self.keys).handle(request)
        if closed := prolific_wire.refuse_path(request, self.token):
            return closed
        operation, ids = prolific_wire.operation_of(request)
        if not operation:
            return prolific_wire.error(FakeProlificError("Not found", "There is nothing here.", 404, 140404))
        try:
            given = prolific_wire.given(request)
        except FakeProlificError as refused:
            return prolific_wire.error(refused, operation)
        return self.call(operation, ids | given, lambda: prolific_wire.answer(self, request))

    def throttled(self) -> HttpReply:
        return prolific_wire.error(FakeProlificError("Too many requests", "Request was throttled.", 429, 140429))

    def failed(self) -> HttpReply:
        return prolific_wire.error(FakeProlificError("Server error", "Something went wrong.", 500, 140500))

    def refused(self, code: str) -> HttpReply:
        known = {"suspended": 403, "unauthorized": 401}
        return prolific_wire.error(
            FakeProlificError(code.capitalize(), f"The request was refused: {code}.", known.get(code, 400))
        )

    def add_worker(self, given: Mapping[str, Any]) -> None:
        account = {name: value for name, value in given.items() if name != "worker_id"}
        self.participants.add(given["worker_id"], **account)
